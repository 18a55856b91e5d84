package client

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // it is how Twilio signs
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// ports are those that a URL without one means.
var ports = map[string]string{"http": "80", "https": "443"}

// ValidForm tells whether Twilio has signed a webhook with the form's fields at
// its public address, with its query. Whether that names its port does not matter.
// https://www.twilio.com/docs/usage/security
func ValidForm(authToken, signature, address string, form url.Values) bool {
	var fields strings.Builder
	for _, key := range slices.Sorted(maps.Keys(form)) {
		values := slices.Clone(form[key])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			fields.WriteString(key)
			fields.WriteString(value)
		}
	}
	return valid(authToken, signature, address, fields.String())
}

// ValidBody tells whether Twilio has signed a webhook with that body, of which
// the address holds the hash.
func ValidBody(authToken, signature, address string, body []byte) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	given, err := hex.DecodeString(u.Query().Get("bodySHA256"))
	is := sha256.Sum256(body)
	return err == nil && hmac.Equal(given, is[:]) && valid(authToken, signature, address, "")
}

func valid(authToken, signature, address, fields string) bool {
	for _, a := range spellings(address) {
		mac := hmac.New(sha1.New, []byte(authToken))
		mac.Write([]byte(a + fields))
		if hmac.Equal([]byte(signature), []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil)))) {
			return true
		}
	}
	return false
}

// spellings are an address as it is, without its port, and with it.
func spellings(address string) []string {
	all := []string{address}
	u, err := url.Parse(address)
	if err != nil {
		return all
	}
	// The rest stays letter by letter: what is signed is text.
	before, rest, ok := strings.Cut(address, "://"+u.Host)
	if !ok {
		return all
	}
	bare := u.Host
	if port := u.Port(); port != "" {
		bare = strings.TrimSuffix(u.Host, ":"+port)
		all = append(all, before+"://"+bare+rest)
	} else if port := ports[u.Scheme]; port != "" {
		all = append(all, before+"://"+bare+":"+port+rest)
	}
	return all
}
