package process

import (
	"os"
	"runtime"
	"slices"
	"strconv"
)

// passedOn are the variables of the host that a process gets: where programs
// are, the user's home, language and time zone, and the way out of the network.
// All others stay with the host, among them whatever holds secrets.
var passedOn = []string{
	"PATH", "HOME", "LANG", "LC_ALL", "TZ",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
}

// passedOnWindows are those without which programs do not run there.
var passedOnWindows = []string{"SystemRoot", "SystemDrive", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PATHEXT"}

// environ is the environment of a process, less what go-plugin adds. Temporary
// files go to the process's own folder. The home is another user's, or empty.
func environ(cfg Config, dir, home string) []string {
	names := passedOn
	if runtime.GOOS == "windows" {
		names = slices.Concat(passedOn, passedOnWindows)
	}
	env := []string{
		"TMPDIR=" + dir, "TEMP=" + dir, "TMP=" + dir,
		"GOMEMLIMIT=" + strconv.FormatInt(cfg.Limits.softMemory(), 10),
	}
	for _, name := range names {
		value, ok := os.LookupEnv(name)
		if name == "HOME" && home != "" {
			value, ok = home, true
		}
		if ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
