package catalog

import (
	"bufio"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// What the headers of programs say of the processor, in Go's words. Only what
// Go itself builds for is named.
var (
	elfMachines = map[elf.Machine]string{
		elf.EM_386: "386", elf.EM_X86_64: "amd64", elf.EM_ARM: "arm", elf.EM_AARCH64: "arm64",
		elf.EM_PPC64: "ppc64", elf.EM_RISCV: "riscv64", elf.EM_S390: "s390x",
		elf.EM_LOONGARCH: "loong64", elf.EM_MIPS: "mips",
	}
	machoMachines = map[macho.Cpu]string{
		macho.Cpu386: "386", macho.CpuAmd64: "amd64", macho.CpuArm: "arm", macho.CpuArm64: "arm64",
	}
	peMachines = map[uint16]string{
		pe.IMAGE_FILE_MACHINE_I386: "386", pe.IMAGE_FILE_MACHINE_AMD64: "amd64",
		pe.IMAGE_FILE_MACHINE_ARMNT: "arm", pe.IMAGE_FILE_MACHINE_ARM64: "arm64",
	}
)

// checkProgram reads a file's header and says why this machine cannot run it.
func checkProgram(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return "it cannot be read: " + reason(err)
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil {
		return "it is too short to be a program; was it copied whole?"
	}
	switch {
	case string(magic[:2]) == "#!":
		return checkScript(f)
	case string(magic) == elf.ELFMAG:
		e, err := elf.NewFile(f)
		if err != nil {
			return damaged("ELF", err)
		}
		return checkMachine("ELF", []string{machine(elfMachines[e.Machine], e.Machine)})
	case string(magic[:2]) == "MZ":
		p, err := pe.NewFile(f)
		if err != nil {
			return damaged("Windows", err)
		}
		return checkMachine("Windows", []string{machine(peMachines[p.Machine], p.Machine)})
	}
	if fat, err := macho.NewFatFile(f); err == nil {
		var have []string
		for _, arch := range fat.Arches {
			have = append(have, machine(machoMachines[arch.Cpu], arch.Cpu))
		}
		return checkMachine("macOS", have)
	}
	if m, err := macho.NewFile(f); err == nil {
		return checkMachine("macOS", []string{machine(machoMachines[m.Cpu], m.Cpu)})
	}
	return fmt.Sprintf("it is not a program that %s can run, nor a script with #!", runtime.GOOS)
}

// checkMachine compares a program's format and processors with this machine's.
func checkMachine(format string, have []string) string {
	want := "ELF"
	switch runtime.GOOS {
	case "darwin", "ios":
		want = "macOS"
	case "windows":
		want = "Windows"
	}
	if format == want && slices.Contains(have, runtime.GOARCH) {
		return ""
	}
	return fmt.Sprintf("it is a program in %s format for %s, and this machine is %s/%s; ask the vendor for that build",
		format, strings.Join(have, " and "), runtime.GOOS, runtime.GOARCH)
}

// checkScript finds the interpreter of a script: the system's own message for
// one that is missing says that the script were missing.
func checkScript(f *os.File) string {
	if runtime.GOOS == "windows" {
		return "it is a script, which Windows cannot start; ask the vendor for a program"
	}
	if _, err := f.Seek(int64(len("#!")), io.SeekStart); err != nil {
		return "it cannot be read: " + reason(err)
	}
	line, err := bufio.NewReaderSize(f, 4096).ReadSlice('\n')
	if err != nil && err != io.EOF {
		return "its #! line has no end"
	}
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return "its #! line names no interpreter"
	}
	if _, err := os.Stat(words[0]); err != nil {
		return fmt.Sprintf("its #! line asks for %s, which cannot be used (%s); install it", words[0], reason(err))
	}
	return ""
}

func machine(name string, code any) string {
	if name != "" {
		return name
	}
	return fmt.Sprintf("processor %v", code)
}

func damaged(format string, err error) string {
	return fmt.Sprintf("it begins like a program in %s format, but its header is damaged (%s); copy it again", format, err)
}
