// Package launcher is what the host's own program does when it is started as
// launcher: what only a process can do to itself, between fork and exec, where Go
// has no such moment. Then it becomes the plugin.
//
// It happens while the program is initialized, in every program that links this
// package: a host takes far longer to be ready than a plugin to be launched. For
// that this package imports the standard library and golang.org/x/sys alone, as Go
// initializes a package once its imports are, in the order of their paths.
//
// It owns the launch, and the record of the process that it leaves in the run
// folder. It knows no plugins and no protocol; package process starts it. On
// systems other than Linux nothing is launched.
package launcher

import (
	"errors"
	"fmt"
	"io/fs"
)

// ExecError adds the likely reason to an error of running a program.
func ExecError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; is the file system of data_dir mounted with noexec?", err)
	}
	return err
}
