// Which published image of Cardstock's this machine's cards and driver want: the program `which`.
//
// It asks the driver, reads a repository's catalogue, and prints the one `docker run` line. It decides as `invoke pull`
// does: its tables are rendered by images/which/tables.py of what that asks.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

const usage = `which: the published image for this machine's cards and driver, and the line that runs it

  docker run --rm --gpus all REPO:which
  docker run --rm --device nvidia.com/gpu=all REPO:which        where the engine gives cards by CDI
  which --from registry.example.com/team/qwen --key cosign.pub
  which --catalogue catalogue.json                              no registry is asked; - reads standard input

`

// options is what was asked.
type options struct {
	from, catalogue, key, way, cases, machine string
	unverified, json, all, version            bool
}

func readOptions(arguments []string, built Built, errors io.Writer) (options, error) {
	var asked options
	flags := flag.NewFlagSet("which", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&asked.from, "from", built.Repository, "the repository whose catalogue is read")
	flags.StringVar(&asked.catalogue, "catalogue", "", "a saved catalogue instead (pull --save); - for standard input")
	flags.StringVar(&asked.key, "key", "", "the public key (cosign.pub) that must have signed the catalogue, instead of the one built in")
	flags.BoolVar(&asked.unverified, "unverified", false, "take a catalogue that no key vouches for")
	flags.StringVar(&asked.way, "way", "", "how the engine gives cards: nvidia (--gpus) or cdi (--device); else as seen here")
	flags.BoolVar(&asked.json, "json", false, "all of the answer as JSON")
	flags.BoolVar(&asked.all, "all", false, "say of each published image why it is not the one")
	flags.BoolVar(&asked.version, "version", false, "what this program was built of")
	flags.StringVar(&asked.machine, "machine", "", "a machine's cards as JSON instead of this one's, for tests")
	flags.StringVar(&asked.cases, "cases", "", "answer a file of questions, a line of JSON each, for tests")
	err := flags.Parse(arguments)
	if err == flag.ErrHelp {
		fmt.Fprint(errors, usage)
		flags.SetOutput(errors)
		flags.PrintDefaults()
		return asked, err
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not expected", printable(flags.Arg(0), 100))
	}
	if err == nil && asked.way != "" && asked.way != "nvidia" && asked.way != "cdi" {
		err = fmt.Errorf("--way is nvidia or cdi, not %q", printable(asked.way, 40))
	}
	if err != nil {
		return asked, &Failure{Exit: exitUsage, What: printable(err.Error(), 200), Do: "which --help"}
	}
	return asked, nil
}

func main() {
	host := Host{path: os.Getenv("PATH"), env: os.Getenv}
	os.Exit(run(os.Args[1:], host, os.Stdin, os.Stdout, os.Stderr))
}

// run does all of it; the exit code.
func run(arguments []string, host Host, in io.Reader, out, errors io.Writer) int {
	err := answer(arguments, host, in, out, errors)
	if err == nil || err == flag.ErrHelp {
		return 0
	}
	failure := asFailure(err)
	fmt.Fprintln(errors, failure.lines())
	return failure.Exit
}

func answer(arguments []string, host Host, in io.Reader, out, errors io.Writer) error {
	built, err := readBuilt()
	if err != nil {
		return err
	}
	asked, err := readOptions(arguments, built, errors)
	if err != nil {
		return err
	}
	tables, err := readTables(tablesText)
	if err != nil {
		return err
	}
	say := func(line string) { fmt.Fprintln(errors, line) }
	if asked.version {
		say(built.text())
		return nil
	}
	var query Query
	if asked.cases == "" { // a machine without a card is told before a registry is asked
		var notes []string
		if query, notes, err = tables.ask(asked, host); err != nil {
			return err
		}
		for _, note := range notes {
			say(note)
		}
	}
	catalogue, err := tables.fetch(asked, built, in, say)
	if err != nil {
		return err
	}
	if asked.cases != "" {
		file, err := os.Open(asked.cases)
		if err != nil {
			return &Failure{Exit: exitUsage, What: "the questions cannot be read", Cause: err.Error()}
		}
		defer file.Close()
		return tables.answerCases(file, out, catalogue, asked.from)
	}
	found := tables.match(catalogue, query)
	if len(found.matches) == 0 {
		return found.refusals[0].why
	}
	if asked.json {
		text, err := asJSON(tables.json(asked.from, found, query))
		if err == nil {
			_, err = io.WriteString(out, text)
		}
		return err
	}
	shown := found
	if !asked.all {
		shown.passed = nil
	}
	for _, line := range shown.lines(asked.from, catalogue) {
		say(line)
	}
	if hidden := len(found.passed) - len(shown.passed); hidden > 0 {
		say(fmt.Sprintf("%d more images are published for these cards or nearly: --all says why each is not the one", hidden))
	}
	for _, one := range found.matches {
		if _, err := fmt.Fprintln(out, shell(tables.run(asked.from, found, one, query))); err != nil {
			return err
		}
	}
	return nil
}

func (b Built) text() string {
	key, repository := "no key", "no repository"
	if b.Key != "" {
		key = "a key"
	}
	if b.Repository != "" {
		repository = b.Repository
	}
	return strings.TrimSpace(fmt.Sprintf("which of Cardstock %s, built for %s, with %s built in", b.Version, repository, key))
}

// ask is what is asked for the machine.
func (t *Tables) ask(asked options, host Host) (Query, []string, error) {
	way := asked.way
	if way == "" {
		way = host.way()
	}
	if asked.machine != "" {
		machine, err := readMachineFile(asked.machine)
		if err != nil {
			return Query{}, nil, err
		}
		return machine.query(way)
	}
	machine, notes := t.readMachine(host)
	query, more, err := machine.query(way)
	if err == nil {
		cards := []string{}
		for _, card := range query.cards {
			memory := ""
			if card.Memory != 0 {
				memory = fmt.Sprintf(", %g GB", card.Memory)
			}
			cards = append(cards, fmt.Sprintf("%s (%s%s)", card.Name, card.arch, memory))
		}
		notes = append(notes, fmt.Sprintf("driver %s; %s", machine.Driver, strings.Join(cards, "; ")))
	}
	return query, append(notes, more...), err
}

// fetch is the catalogue: of a file, of standard input, or of the registry, verified.
func (t *Tables) fetch(asked options, built Built, in io.Reader, say func(string)) (*Catalogue, error) {
	if asked.catalogue != "" {
		raw, err := readNamed(asked.catalogue, in, mostCatalogue)
		if err != nil {
			return nil, &Failure{
				Exit: exitUsage, What: "the catalogue cannot be read: " + asked.catalogue, Cause: err.Error(),
				Do: "./inv pull --save FILE saves one; in a container, give it by standard input: docker run -i … --catalogue - < FILE",
			}
		}
		named := asked.catalogue
		if named == "-" {
			named = "standard input"
		}
		say("the catalogue of " + named + " is taken as it is: no signature is verified")
		return t.readCatalogue(raw, named)
	}
	if asked.from == "" {
		return nil, &Failure{
			Exit: exitUsage, What: "no repository is named",
			Do: "say which: --from registry.example.com/team/qwen; or name a saved catalogue: --catalogue FILE",
		}
	}
	registry, err := newRegistry(asked.from)
	if err != nil {
		return nil, err
	}
	key, err := t.key(asked, built)
	if err != nil {
		return nil, err
	}
	if key == nil {
		if !asked.unverified {
			return nil, &Failure{
				Exit: exitUnsafe, What: "the catalogue of " + asked.from + " is not verified: there is no key to verify it by",
				Cause: "none is built into this program, and none was named",
				Do:    "name the publisher's public key: --key cosign.pub; or take it as it is: --unverified",
			}
		}
		say("signatures are not verified: --unverified")
	}
	return registry.catalogue(t, key)
}

// key is the key that was named; else the one built in, for the repository that it was built in for.
func (t *Tables) key(asked options, built Built) (*Key, error) {
	if asked.key != "" {
		raw, err := readNamed(asked.key, nil, mostKey)
		if err != nil {
			return nil, noKey(asked.key, err.Error())
		}
		return readKey(raw, asked.key)
	}
	if built.Key == "" || asked.unverified {
		return nil, nil
	}
	return readKey([]byte(built.Key), "the key that is built in")
}

func readNamed(name string, in io.Reader, most int64) ([]byte, error) {
	if name == "-" && in != nil {
		return readBounded(in, most)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(file, most)
}
