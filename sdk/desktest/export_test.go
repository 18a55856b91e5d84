package desktest

import (
	"context"
	"slices"
)

// Launch starts a plugin; for tests that stand between the suite and a plugin.
var Launch = launch

// Checks are the names of all checks.
func Checks() (names []string) {
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// Check runs one check, with so much patience for what must not happen that a
// wrong plugin is caught however slow the machine is.
func Check(ctx context.Context, plugin Plugin, name string) (Result, error) {
	plugin, err := plugin.absolute()
	if err != nil {
		return Result{}, err
	}
	all := checks()
	return all[slices.IndexFunc(all, func(c *check) bool { return c.name == name })].try(ctx, plugin, 10*quiet), nil
}
