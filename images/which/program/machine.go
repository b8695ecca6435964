package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	mostOutput = 16 << 20 // bytes of an answer of nvidia-smi
	mostAsked  = 16       // cards that are asked for one by one
	smiTime    = 60 * time.Second
	nvidia     = "0x10de"
)

// Host is where the program looks: the file system below a folder, "" for the machine itself.
type Host struct {
	root string
	path string // $PATH
	env  func(string) string
}

func (h Host) at(name string) string { return filepath.Join(h.root, name) }

func (h Host) there(name string) bool {
	_, err := os.Stat(h.at(name))
	return err == nil
}

func (h Host) read(name string) []byte {
	file, err := os.Open(h.at(name))
	if err != nil {
		return nil
	}
	defer file.Close()
	raw, _ := io.ReadAll(io.LimitReader(file, 64<<10))
	return raw
}

// inContainer says whether this is a container, by what engines leave in it.
func (h Host) inContainer() bool {
	return h.there("/.dockerenv") || h.there("/run/.containerenv") || h.env("CARDSTOCK_WHICH_IMAGE") != ""
}

// onBus are the PCI addresses of NVIDIA's display controllers, with or without a driver.
func (h Host) onBus() []string {
	devices, _ := filepath.Glob(h.at("/sys/bus/pci/devices/*"))
	var out []string
	for _, device := range devices {
		name := strings.TrimPrefix(device, h.root)
		vendor := strings.TrimSpace(string(h.read(name + "/vendor")))
		class := strings.TrimSpace(string(h.read(name + "/class")))
		if vendor == nvidia && strings.HasPrefix(class, "0x03") {
			out = append(out, filepath.Base(device))
		}
	}
	return out
}

// smi is where nvidia-smi is; "" where it is not.
func (h Host) smi() string {
	folders := append(filepath.SplitList(h.path),
		"/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/run/current-system/sw/bin", "/opt/nvidia/bin")
	for _, folder := range folders {
		file := filepath.Join(folder, "nvidia-smi")
		if info, err := os.Stat(h.at(file)); filepath.IsAbs(folder) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return h.at(file)
		}
	}
	return ""
}

// libraryFolders are where runtimes put the driver's libraries; in an image there is no ldconfig to find them.
var libraryFolders = []string{
	"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib/x86_64-linux-gnu", "/usr/local/nvidia/lib64",
	"/usr/lib/wsl/lib", "/run/opengl-driver/lib", "/usr/lib/aarch64-linux-gnu",
}

// libraryFolders are those, and the folders of Windows' driver in WSL2.
func (h Host) libraryFolders() []string {
	drivers, _ := filepath.Glob(h.at("/usr/lib/wsl/drivers/*"))
	if len(drivers) > mostAsked {
		drivers = drivers[:mostAsked]
	}
	out := append([]string{}, libraryFolders...)
	for _, folder := range drivers {
		out = append(out, strings.TrimPrefix(folder, h.root))
	}
	return out
}

// library is the driver's libnvidia-ml where it stands without the link that loaders look for; "" where all is well.
func (h Host) library() string {
	var versioned string
	for _, folder := range h.libraryFolders() {
		if h.there(folder + "/libnvidia-ml.so.1") {
			return ""
		}
		found, _ := filepath.Glob(h.at(folder + "/libnvidia-ml.so.*"))
		if len(found) > 0 && versioned == "" {
			versioned = found[0]
		}
	}
	return versioned
}

// ask runs nvidia-smi, bounded in time and output; what it says, its exit code (-1: it could not be run), and why not.
func (h Host) ask(program string, arguments ...string) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), smiTime)
	defer cancel()
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = []string{"PATH=" + h.path, "LC_ALL=C"}
	folders := h.libraryFolders()
	if own := h.env("LD_LIBRARY_PATH"); own != "" {
		folders = append([]string{own}, folders...)
	}
	if h.inContainer() {
		command.Env = append(command.Env, "LD_LIBRARY_PATH="+strings.Join(folders, ":"))
		if file := h.library(); file != "" {
			command.Env = append(command.Env, "LD_PRELOAD="+file)
		}
	} else if own := h.env("LD_LIBRARY_PATH"); own != "" {
		command.Env = append(command.Env, "LD_LIBRARY_PATH="+own)
	}
	out := &limited{most: mostOutput}
	command.Stdout, command.Stderr = out, out
	done := make(chan error, 1)
	go func() { done <- command.Run() }()
	select {
	case err := <-done:
		var exited *exec.ExitError
		switch {
		case out.over:
			return nil, -1, fmt.Errorf("it says more than %d bytes", mostOutput)
		case ctx.Err() != nil:
			return nil, -1, fmt.Errorf("it does not end within %s", smiTime)
		case err == nil:
			return out.kept.Bytes(), 0, nil
		case errors.As(err, &exited):
			return out.kept.Bytes(), exited.ExitCode(), nil
		default:
			return nil, -1, err
		}
	case <-time.After(smiTime + 5*time.Second): // one that waits for a broken driver cannot even be killed
		return nil, -1, fmt.Errorf("it does not end within %s, and cannot be ended", smiTime)
	}
}

// limited keeps what is written to it up to a bound.
type limited struct {
	kept bytes.Buffer // not embedded: its ReadFrom would know no bound
	most int
	over bool
}

func (l *limited) Write(part []byte) (int, error) {
	if l.kept.Len()+len(part) > l.most {
		l.over = true
		return 0, errors.New("too much")
	}
	return l.kept.Write(part)
}

// readMachine asks the driver by its own means: nvidia-smi, else what its kernel module tells in /proc. It never fails: a
// machine without a card is one that says why, and what to do. The lines are for people.
func (t *Tables) readMachine(host Host) (Machine, []string) {
	program := host.smi()
	kernel := readDriver(string(host.read("/proc/driver/nvidia/version")))
	var machine Machine
	var notes []string
	switch {
	case program != "":
		machine, notes = t.askSmi(host, program)
	case kernel != nil && host.devices() > 0:
		machine, notes = t.fromProc(host)
		machine.Driver = kernel.String()
	default:
		machine = t.without(host, kernel)
	}
	if runtime.GOARCH == "arm64" {
		machine.Host = "arm64"
	}
	seen := len(machine.Cards) + len(machine.Lost)
	machine.Part = host.inContainer() && len(machine.Cards) > 0 && seen < len(host.onBus())
	if machine.Part {
		notes = append(notes, fmt.Sprintf("%d of this machine's %d cards are seen from here, and meant", seen, len(host.onBus())))
	}
	return machine, notes
}

// devices is how many device files of cards there are here.
func (h Host) devices() int { return len(h.minors()) }

func (h Host) minors() map[int]bool {
	found, _ := filepath.Glob(h.at("/dev/nvidia[0-9]*"))
	out := map[int]bool{}
	for _, file := range found {
		if number, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), "nvidia")); err == nil {
			out[number] = true
		}
	}
	return out
}

func (t *Tables) askSmi(host Host, program string) (Machine, []string) {
	log, code, err := host.ask(program, "-q", "-x")
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("its loader (ld-linux) is not here")
		}
		why := "nvidia-smi cannot be run: " + printable(reason(err), 200)
		if host.devices() > 0 && host.there("/proc/driver/nvidia/version") {
			machine, notes := t.fromProc(host)
			machine.Driver = readDriver(string(host.read("/proc/driver/nvidia/version"))).text()
			return machine, append([]string{why}, notes...)
		}
		return Machine{Why: why, Do: "see what nvidia-smi says"}, nil
	}
	if code != 0 {
		fault := t.fault(code, string(log), host)
		if machine, notes := t.oneByOne(host, program); len(machine.Cards) > 0 {
			return machine, notes
		}
		return Machine{Why: fault.What, Do: fault.Do}, nil
	}
	capabilities, code, err := host.ask(program, "--query-gpu=uuid,compute_cap", "--format=csv,noheader")
	if code != 0 || err != nil {
		capabilities = nil // a driver of before 510 does not know the question
	}
	list, code, err := host.ask(program, "-L")
	if code != 0 || err != nil {
		list = nil
	}
	machine, notes, err := t.readSmi(log, capabilities, list)
	if err != nil {
		return Machine{Why: "nvidia-smi answers with what cannot be read: " + printable(err.Error(), 200), Do: "see what nvidia-smi -q says"}, nil
	}
	return machine, notes
}

// smiWords are what nvidia-smi says, and the NVML error that it means.
var smiWords = []struct {
	words string
	code  int
}{
	{"driver/library version mismatch", 18}, {"gpu is lost", 15}, {"fallen off the bus", 15}, {"couldn't communicate", 9},
	{"insufficient permissions", 4}, {"couldn't find libnvidia-ml", 12}, {"blocked by the operating system", 17},
	{"access blocked", 17}, {"no devices were found", 6}, {"unknown error", 999},
}

// oneByOne asks for each card that the kernel module tells of: one that has fallen off the bus ends an answer about all.
func (t *Tables) oneByOne(host Host, program string) (Machine, []string) {
	var machine Machine
	var notes []string
	folders, _ := filepath.Glob(host.at("/proc/driver/nvidia/gpus/*"))
	if len(folders) > mostAsked {
		return machine, nil
	}
	began := time.Now()
	for index, folder := range folders {
		address := filepath.Base(folder)
		if time.Since(began) > 2*smiTime {
			machine.Lost = append(machine.Lost, LostCard{index, address, "it was not asked: the others took too long", ""})
			continue
		}
		log, code, err := host.ask(program, "-q", "-x", "-i", address)
		if err != nil || code != 0 {
			fault := Fault{What: "nvidia-smi does not answer for it"}
			if err == nil {
				fault = t.fault(code, string(log), host)
			}
			machine.Lost = append(machine.Lost, LostCard{index, address, fault.What, fault.Do})
			continue
		}
		capability, code, err := host.ask(program, "--query-gpu=uuid,compute_cap", "--format=csv,noheader", "-i", address)
		if code != 0 || err != nil {
			capability = nil
		}
		list, code, err := host.ask(program, "-L", "-i", address)
		if code != 0 || err != nil {
			list = nil
		}
		one, more, err := t.readSmi(log, capability, list)
		if err != nil || len(one.Cards) != 1 {
			machine.Lost = append(machine.Lost, LostCard{index, address, "nvidia-smi's answer for it cannot be read", ""})
			continue
		}
		place := index
		one.Cards[0].Index = &place
		machine.Driver, machine.Cards, notes = one.Driver, append(machine.Cards, one.Cards[0]), append(notes, more...)
	}
	return machine, notes
}

// fault is what an exit code and the words of nvidia-smi mean: its exit codes are NVML's (nvidia-smi's manual).
func (t *Tables) fault(code int, said string, host Host) Fault {
	for _, one := range smiWords {
		if strings.Contains(strings.ToLower(said), one.words) {
			code = one.code
			break
		}
	}
	if code == 6 {
		return Fault{"the driver sees no card", "see dmesg for NVRM and Xid; in a container, start it with its cards: --gpus all"}
	}
	if code == 17 && host.there("/dev/dxg") {
		return t.NvmlWSL
	}
	if found, there := t.Nvml[strconv.Itoa(code)]; there {
		return found
	}
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return Fault{fmt.Sprintf("nvidia-smi ends with %d: %s", code, printable(line, 200)), "see what nvidia-smi says, and dmesg"}
}

// fromProc is the machine as the driver's kernel module tells of it, where the runtime brought no nvidia-smi: names,
// whose compute capability the card list has. MIG instances and memory are not known so.
func (t *Tables) fromProc(host Host) (Machine, []string) {
	minors := host.minors()
	folders, _ := filepath.Glob(host.at("/proc/driver/nvidia/gpus/*"))
	var machine Machine
	notes := []string{"no nvidia-smi answers: cards by the names that the kernel module tells"}
	if host.inContainer() {
		notes[0] += "; NVIDIA_DRIVER_CAPABILITIES=compute,utility brings it"
	}
	for at, folder := range folders {
		told := readInformation(host.read(strings.TrimPrefix(folder, host.root) + "/information"))
		minor, err := strconv.Atoi(told["Device Minor"])
		if at >= mostCards || (err == nil && !minors[minor]) {
			continue // this container was not given it
		}
		index := len(machine.Cards) + len(machine.Lost)
		found, there := t.named(told["Model"])
		if !there || !uuidForm.MatchString(told["GPU UUID"]) {
			why := fmt.Sprintf("nothing tells its compute capability (%s)", told["Model"])
			machine.Lost = append(machine.Lost, LostCard{index, filepath.Base(folder), why, ""})
			continue
		}
		machine.Cards = append(machine.Cards, LocalCard{
			Name: told["Model"], UUID: told["GPU UUID"], Arch: found.Arch, Memory: int64(found.Memory * (1 << 30)), Index: &index,
		})
	}
	if len(machine.Cards) == 0 {
		machine.Why = "the kernel module tells of no card that is known"
		machine.Do = "bring nvidia-smi: NVIDIA_DRIVER_CAPABILITIES=compute,utility"
	}
	return machine, notes
}

// without says what the driver or the runtime lacks where no card can be asked.
func (t *Tables) without(host Host, kernel Driver) Machine {
	bus := host.onBus()
	start := "start it with its cards: docker run --gpus all … (NVIDIA's container toolkit), or --device nvidia.com/gpu=all (CDI)"
	switch {
	case host.there("/dev/dxg"):
		return Machine{Why: "WSL2 has a card, and its nvidia-smi is not here", Do: "in a container, " + start + "; else look for /usr/lib/wsl/lib/nvidia-smi"}
	case kernel != nil && host.devices() == 0 && host.inContainer():
		return Machine{
			Driver: kernel.String(), Do: start,
			Why: fmt.Sprintf("driver %s is loaded, and this container was given no card: it has no /dev/nvidia0", kernel),
		}
	case kernel != nil:
		return Machine{
			Driver: kernel.String(), Do: "install the driver's user-space part of the same version (nvidia-smi, libnvidia-ml.so.1)",
			Why: fmt.Sprintf("driver %s is loaded, and there is no nvidia-smi and no /dev/nvidia0", kernel),
		}
	case len(bus) > 0:
		return Machine{
			Why: fmt.Sprintf("the NVIDIA driver is not loaded: %d of NVIDIA's cards on the PCI bus (%s)", len(bus), strings.Join(head(bus, 4), ", ")),
			Do:  "install the driver, or load it: sudo modprobe nvidia says why not (Secure Boot, a new kernel without its module); then nvidia-smi",
		}
	}
	return Machine{
		Why: "no NVIDIA driver is loaded (/proc/driver/nvidia is not there), and no card of NVIDIA's is on the PCI bus",
		Do:  "run it on the machine with the card; an image for the CPU needs none: ./inv pull --name cpu-…",
	}
}

func head(list []string, most int) []string {
	if len(list) > most {
		return list[:most]
	}
	return list
}

// way is how the engine here gives containers cards: "cdi", or "nvidia" for --gpus.
//
// In a container: --gpus sets NVIDIA_VISIBLE_DEVICES, and CDI sets it to "void" or not at all. On a host: NVIDIA's hook,
// else a CDI specification.
func (h Host) way() string {
	if h.inContainer() {
		if told := h.env("NVIDIA_VISIBLE_DEVICES"); (told == "" || told == "void") && h.devices() > 0 {
			return "cdi"
		}
		return "nvidia"
	}
	for _, folder := range filepath.SplitList(h.path) {
		if h.there(folder + "/nvidia-container-runtime-hook") {
			return "nvidia"
		}
	}
	for _, folder := range []string{"/etc/cdi", "/var/run/cdi"} {
		files, _ := filepath.Glob(h.at(folder + "/*"))
		for _, file := range files {
			if bytes.Contains(h.read(strings.TrimPrefix(file, h.root)), []byte("nvidia.com/gpu")) {
				return "cdi"
			}
		}
	}
	return "nvidia"
}
