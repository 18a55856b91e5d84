package desktest

import (
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// noHandshake says why a program that was launched has not become a plugin, and
// what to do. The program has been ended.
func (p *process) noHandshake(err error) error {
	info, statErr := os.Stat(p.file)
	system := runtime.GOOS + "/" + runtime.GOARCH
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s; build the plugin first", p.file)
	case statErr == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file; name the plugin's program", p.file)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is not executable; run: chmod +x %s (%w)", p.file, p.file, err)
	case p.cmd == nil || p.cmd.Process == nil:
		// It was not started.
		if built := builtFor(p.file); built != "" && built != system {
			return fmt.Errorf("the file is a program for %s, and this system is %s; build it for this one (in Go: GOOS=%s GOARCH=%s go build)",
				built, system, runtime.GOOS, runtime.GOARCH)
		}
		if errors.Is(err, syscall.ENOEXEC) {
			return fmt.Errorf("the file is no program: neither a binary for %s nor a script that begins with #! (%w)", system, err)
		}
		return fmt.Errorf("the program cannot be started: %w", err)
	case p.said.String() != "":
		return fmt.Errorf("the first line was %.200q: %w", p.firstLine(), err)
	case !p.killed:
		return fmt.Errorf("the program ended (%s) and printed nothing; is it a deskhost plugin? One calls sdk.Serve, or prints the handshake itself", p.cmd.ProcessState)
	default:
		return fmt.Errorf("the program printed nothing within %s; is it a deskhost plugin? One calls sdk.Serve, or prints the handshake itself", startTime)
	}
}

// builtFor reads from a binary for which system it is, in Go's words; "" for
// what is none, or holds several.
func builtFor(file string) string {
	if f, err := elf.Open(file); err == nil {
		defer f.Close()
		return "linux/" + named(map[elf.Machine]string{
			elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
		}, f.Machine)
	}
	if f, err := macho.Open(file); err == nil {
		defer f.Close()
		return "darwin/" + named(map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64", macho.CpuPpc64: "ppc64"}, f.Cpu)
	}
	if f, err := pe.Open(file); err == nil {
		defer f.Close()
		return "windows/" + named(map[uint16]string{
			pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64", pe.IMAGE_FILE_MACHINE_I386: "386",
		}, f.Machine)
	}
	return ""
}

// named is Go's name of an architecture, or what the file calls it.
func named[A comparable](names map[A]string, arch A) string {
	if name := names[arch]; name != "" {
		return name
	}
	return strings.ToLower(fmt.Sprint(arch))
}
