package main

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

const (
	smiXML = `<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Sat Nov 28 10:00:00 2026</timestamp>
	<driver_version>535.104.05</driver_version>
	<cuda_version>12.2</cuda_version>
	<attached_gpus>2</attached_gpus>
	<gpu id="00000000:3B:00.0">
		<product_name>NVIDIA A100-SXM4-40GB</product_name>
		<mig_mode><current_mig>Enabled</current_mig><pending_mig>Enabled</pending_mig></mig_mode>
		<mig_devices>
			<mig_device><index>0</index><fb_memory_usage><total>4864 MiB</total></fb_memory_usage></mig_device>
			<mig_device><index>1</index><fb_memory_usage><total>19968 MiB</total></fb_memory_usage></mig_device>
		</mig_devices>
		<uuid>GPU-aaaa</uuid>
		<fb_memory_usage><total>40960 MiB</total><used>1 MiB</used></fb_memory_usage>
	</gpu>
	<gpu id="00000000:AF:00.0">
		<product_name>NVIDIA GeForce RTX 3090</product_name>
		<mig_mode><current_mig>N/A</current_mig></mig_mode>
		<mig_devices>None</mig_devices>
		<uuid>GPU-bbbb</uuid>
		<fb_memory_usage><total>24576 MiB</total></fb_memory_usage>
	</gpu>
</nvidia_smi_log>
`
	smiCaps = "GPU-aaaa, 8.0\nGPU-bbbb, 8.6\n"
	smiList = `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 1g.5gb      Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA GeForce RTX 3090 (UUID: GPU-bbbb)
`
)

// smi is a program that answers as nvidia-smi does.
func smi(log, caps, list string, code int) string {
	return fmt.Sprintf("#!/bin/sh\ncase \"$1\" in\n-q) cat <<'E'\n%sE\n;;\n--query-gpu=*) cat <<'E'\n%sE\n;;\n-L) cat <<'E'\n%sE\n;;\nesac\nexit %d\n",
		log, caps, list, code)
}

func TestCardsOfNvidiaSmi(t *testing.T) {
	tables := tablesOf(t)
	machine, notes := tables.readMachine(hostOf(t, map[string]string{"usr/bin/nvidia-smi": smi(smiXML, smiCaps, smiList, 0)}, nil))
	if machine.Driver != "535.104.05" || len(machine.Cards) != 2 || len(notes) != 0 {
		t.Fatalf("%+v %v", machine, notes)
	}
	first := machine.Cards[0]
	if !first.Mig || first.Arch != "8.0" || len(first.Slices) != 2 {
		t.Fatalf("%+v", first)
	}
	want := MigInstance{"NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-2222", 19968 << 20}
	if first.Slices[1] != want {
		t.Errorf("%+v", first.Slices[1])
	}
	query, lines, err := machine.query("")
	if err != nil || len(query.cards) != 1 || query.cards[0].Memory != 24 || query.devices[0] != "1" {
		t.Errorf("%+v %v", query, err)
	}
	wants(t, strings.Join(lines, "\n"), "card 0 is cut into MIG instances and left out")
}

func TestOldNvidiaSmiTellsNoCapability(t *testing.T) {
	tables := tablesOf(t)
	machine, notes, err := tables.readSmi([]byte(smiXML), []byte("Field \"compute_cap\" is not a valid field to query.\n"), nil)
	if err != nil || len(machine.Cards) != 2 || machine.Cards[0].Arch != "8.0" || machine.Cards[1].Arch != "8.6" {
		t.Fatalf("%+v %v", machine, err)
	}
	wants(t, strings.Join(notes, "\n"), "compute capability 8.6 by its name")
}

func TestNamesOfDrivers(t *testing.T) {
	tables := tablesOf(t)
	for name, arch := range map[string]string{
		"NVIDIA H100 80GB HBM3": "9.0", "NVIDIA A100-SXM4-80GB": "8.0", "Tesla T4": "7.5", "NVIDIA GeForce RTX 4090": "8.9",
		"NVIDIA GeForce GTX 1080 Ti": "6.1", "NVIDIA L40S": "8.9", "NVIDIA H200": "9.0", "NVIDIA RTX A6000": "8.6",
		"Tesla V100-SXM2-16GB": "7.0", "NVIDIA B200": "10.0", "NVIDIA GeForce RTX 5090": "12.0",
	} {
		if found, there := tables.named(name); !there || found.Arch != arch {
			t.Errorf("%s: %v %v", name, found, there)
		}
	}
	for _, name := range []string{"", "NVIDIA", "NVIDIA Graphics Device", "GeForce"} {
		if found, there := tables.named(name); there {
			t.Errorf("%q is taken for %v", name, found)
		}
	}
}

func TestWithoutACardItSaysWhatIsLacking(t *testing.T) {
	version := "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version:  gcc 12\n"
	card := map[string]string{
		"sys/bus/pci/devices/0000:3b:00.0/vendor": "0x10de\n", "sys/bus/pci/devices/0000:3b:00.0/class": "0x030200\n",
	}
	with := func(more map[string]string) map[string]string {
		out := map[string]string{}
		for _, files := range []map[string]string{card, more} {
			for name, text := range files {
				out[name] = text
			}
		}
		return out
	}
	for name, test := range map[string]struct {
		files map[string]string
		words []string
	}{
		"nothing":      {nil, []string{"no NVIDIA driver is loaded", "no card of NVIDIA's is on the PCI bus"}},
		"no driver":    {card, []string{"the NVIDIA driver is not loaded: 1 of NVIDIA's cards on the PCI bus (0000:3b:00.0)", "modprobe nvidia"}},
		"no user part": {with(map[string]string{"proc/driver/nvidia/version": version}), []string{"driver 550.54.14 is loaded, and there is no nvidia-smi"}},
		"not given": {with(map[string]string{"proc/driver/nvidia/version": version, ".dockerenv": ""}),
			[]string{"this container was given no card", "--gpus all", "--device nvidia.com/gpu=all"}},
		"WSL":          {map[string]string{"dev/dxg": ""}, []string{"WSL2 has a card"}},
		"mismatch":     {map[string]string{"usr/bin/nvidia-smi": smi("Failed to initialize NVML: Driver/library version mismatch\n", "", "", 18)}, []string{"updated but not loaded anew"}},
		"not loaded":   {map[string]string{"usr/bin/nvidia-smi": smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "", "", 9)}, []string{"installed but not loaded"}},
		"unknown":      {map[string]string{"usr/bin/nvidia-smi": smi("Failed to initialize NVML: Unknown Error\n", "", "", 255)}, []string{"start it anew"}},
		"other":        {map[string]string{"usr/bin/nvidia-smi": smi("it burns\x1b[31m\n", "", "", 77)}, []string{"nvidia-smi ends with 77: it burns?[31m"}},
		"no loader":    {map[string]string{"usr/bin/nvidia-smi": "#!/no/such/loader\n"}, []string{"nvidia-smi cannot be run", "its loader (ld-linux) is not here"}},
		"no answer":    {map[string]string{"usr/bin/nvidia-smi": smi("<nvidia_smi_log><driver_version>550</driver_version></nvidia_smi_log>\n", "", "", 0)}, []string{"the driver sees no card"}},
		"broken":       {map[string]string{"usr/bin/nvidia-smi": smi("no xml\n", "", "", 0)}, []string{"answers with what cannot be read"}},
		"unknown card": {map[string]string{"usr/bin/nvidia-smi": smi(strings.ReplaceAll(strings.ReplaceAll(smiXML, "A100-SXM4-40GB", "Q9"), "GeForce RTX 3090", "Q9"), "", "", 0)}, []string{"nothing tells its compute capability (NVIDIA Q9)"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, said := ran(t, hostOf(t, test.files, nil), "", "--catalogue", "/none")
			if code != exitNoImage || out != "" {
				t.Errorf("exit code %d, %q", code, out)
			}
			wants(t, said, append(test.words, "this machine has no NVIDIA card to find an image for", "  do: ")...)
		})
	}
}

func TestWithoutNvidiaSmiTheKernelModuleIsAsked(t *testing.T) {
	tables := tablesOf(t)
	files := map[string]string{
		"proc/driver/nvidia/version":                       "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat",
		"proc/driver/nvidia/gpus/0000:3b:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 5\nGPU UUID: \t GPU-cccc\nDevice Minor: \t 0\n",
		"proc/driver/nvidia/gpus/0000:af:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-dddd\nDevice Minor: \t 1\n",
		"dev/nvidia0": "", "dev/nvidiactl": "", ".dockerenv": "",
		"sys/bus/pci/devices/0000:3b:00.0/vendor": "0x10de", "sys/bus/pci/devices/0000:3b:00.0/class": "0x030200",
		"sys/bus/pci/devices/0000:af:00.0/vendor": "0x10de", "sys/bus/pci/devices/0000:af:00.0/class": "0x030200",
	}
	host := hostOf(t, files, nil)
	machine, notes := tables.readMachine(host)
	if len(machine.Cards) != 1 || machine.Cards[0].Arch != "9.0" || machine.Driver != "535.104.05" || !machine.Part {
		t.Fatalf("%+v %v", machine, notes)
	}
	query, _, err := machine.query(host.way())
	if err != nil || len(query.devices) != 1 || query.devices[0] != "GPU-cccc" || query.way != "cdi" {
		t.Errorf("%+v %v", query, err)
	}
	if host.env = func(string) string { return "all" }; host.way() != "nvidia" {
		t.Error("--gpus sets NVIDIA_VISIBLE_DEVICES")
	}
}

func TestACardThatIsLostLeavesTheOthers(t *testing.T) {
	tables := tablesOf(t)
	one := strings.Replace(smiXML, smiXML[strings.Index(smiXML, "\t<gpu id=\"00000000:3B"):strings.Index(smiXML, "\t<gpu id=\"00000000:AF")], "", 1)
	script := "#!/bin/sh\ncase \"$*\" in\n*-i*3b*) echo 'GPU is lost. Reboot the system to recover this GPU'; exit 15;;\n" +
		"-q*-i*af*) cat <<'E'\n" + one + "E\n;;\n--query*af*) echo 'GPU-bbbb, 8.6';;\n-L*af*) ;;\n" +
		"*) echo 'Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.'; exit 15;;\nesac\n"
	files := map[string]string{
		"usr/bin/nvidia-smi": script, "proc/driver/nvidia/version": "Kernel Module  535.104.05  ",
		"proc/driver/nvidia/gpus/0000:3b:00.0/information": "", "proc/driver/nvidia/gpus/0000:af:00.0/information": "",
	}
	machine, _ := tables.readMachine(hostOf(t, files, nil))
	if len(machine.Cards) != 1 || len(machine.Lost) != 1 || *machine.Cards[0].Index != 1 {
		t.Fatalf("%+v", machine)
	}
	query, lines, err := machine.query("")
	if err != nil || len(query.devices) != 1 || query.devices[0] != "GPU-bbbb" {
		t.Errorf("%+v %v", query, err)
	}
	wants(t, strings.Join(lines, "\n"), "card 0 at PCI 0000:3b:00.0: the card has fallen off the bus; the other cards are used")
}

func TestALibraryWithoutItsLinkIsPreloaded(t *testing.T) {
	host := hostOf(t, map[string]string{
		"usr/lib64/libnvidia-ml.so.580.159.04": "", ".dockerenv": "", "usr/bin/nvidia-smi": "#!/bin/sh\necho \"$LD_PRELOAD $LD_LIBRARY_PATH\" >&2\nexit 3\n",
	}, nil)
	said, code, err := host.ask(host.smi(), "-q")
	if code != 3 || err != nil {
		t.Fatal(code, err)
	}
	wants(t, string(said), "/usr/lib64/libnvidia-ml.so.580.159.04", "/usr/lib/x86_64-linux-gnu")
}

func TestOutputOfNvidiaSmiIsBounded(t *testing.T) {
	host := hostOf(t, map[string]string{"usr/bin/nvidia-smi": "#!/bin/sh\nexec cat /dev/zero\n"}, nil)
	if _, _, err := host.ask(host.smi(), "-q"); err == nil {
		t.Error("an answer without end was taken")
	}
}

func TestDriversAreReadAsPythonDoes(t *testing.T) {
	for text, want := range map[string]string{
		"550.54.14": "550.54.14", "R570": "570", "x 5500.1 y": "", "550.1234": "550", "1.550.2": "", "": "",
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19": "535.104.05", "535.54.03.7": "535.54.03",
	} {
		got := ""
		if driver := readDriver(text); driver != nil {
			got = driver.String()
		}
		if got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
	for _, text := range []string{"", "5", "53", "5355", "535.", "535.1.2.3", "+35", "535.-1", "535.1234", "a"} {
		if _, err := parseDriver(text); err == nil {
			t.Errorf("%q is taken for a driver", text)
		}
	}
}

// What comes from outside, broken in many ways: no answer may end the program, or be a card without a capability.
func TestBrokenAnswersOfNvidiaSmi(t *testing.T) {
	tables, chance := tablesOf(t), rand.New(rand.NewSource(18))
	for round := 0; round < 3000; round++ {
		log, caps, list := broken(chance, smiXML), broken(chance, smiCaps), broken(chance, smiList)
		machine, _, err := tables.readSmi(log, caps, list)
		if err != nil {
			continue
		}
		for _, card := range machine.Cards {
			if _, err := parseArch(card.Arch); err != nil || card.Name != printable(card.Name, 100) {
				t.Fatalf("%+v", card)
			}
		}
		if len(machine.Cards) > 0 {
			if _, _, err := machine.query(""); err != nil {
				t.Fatal(err)
			}
		}
		readInformation(log)
		readDriver(string(list))
	}
}

// broken is a text with bytes changed, cut out, or said again.
func broken(chance *rand.Rand, text string) []byte {
	raw := []byte(text)
	for count := chance.Intn(4); count >= 0 && len(raw) > 2; count-- {
		at := chance.Intn(len(raw) - 1)
		end := at + 1 + chance.Intn(len(raw)-at-1)
		switch chance.Intn(4) {
		case 0:
			raw[at] = byte(chance.Intn(256))
		case 1:
			raw = append(raw[:at:at], raw[end:]...)
		case 2:
			raw = append(raw[:end:end], raw[at:]...)
		default:
			raw = raw[:end]
		}
	}
	return raw
}
