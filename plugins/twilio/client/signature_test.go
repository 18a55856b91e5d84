package client_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	twilio "github.com/twilio/twilio-go/client"

	"github.com/deskhost/deskhost/plugins/twilio/client"
	"github.com/deskhost/deskhost/plugins/twilio/twiliotest"
)

// The vendor's own example.
const (
	token   = "12345"
	address = "https://mycompany.com/myapp.php?foo=1&bar=2"
	signed  = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
)

func example() url.Values {
	return url.Values{
		"CallSid": {"CA1234567890ABCDE"}, "Caller": {"+14158675309"}, "Digits": {"1234"}, "From": {"+14158675309"}, "To": {"+18005551212"},
	}
}

func TestSignatureOfAForm(t *testing.T) {
	if !client.ValidForm(token, signed, address, example()) {
		t.Error("the vendor's example is refused")
	}
	for what, refused := range map[string]func() bool{
		"another token":   func() bool { return client.ValidForm("12346", signed, address, example()) },
		"another address": func() bool { return client.ValidForm(token, signed, address+"3", example()) },
		"another scheme": func() bool {
			return client.ValidForm(token, signed, strings.Replace(address, "https", "http", 1), example())
		},
		"another port": func() bool { return client.ValidForm(token, sign("https://a.test:1/x"), "https://a.test:2/x", nil) },
		"no signature": func() bool { return client.ValidForm(token, "", address, example()) },
		"half of it":   func() bool { return client.ValidForm(token, signed[:14], address, example()) },
		"no base64":    func() bool { return client.ValidForm(token, "*"+signed[1:], address, example()) },
		"a field more": func() bool { f := example(); f.Set("X", ""); return client.ValidForm(token, signed, address, f) },
		"a field less": func() bool { f := example(); f.Del("To"); return client.ValidForm(token, signed, address, f) },
		"a letter of a body": func() bool {
			f := example()
			f.Set("Digits", "1235")
			return client.ValidForm(token, signed, address, f)
		},
	} {
		if refused() {
			t.Errorf("%s is accepted", what)
		}
	}
	for i := range signed[:27] {
		flipped := []byte(signed)
		flipped[i] ^= 1
		if client.ValidForm(token, string(flipped), address, example()) {
			t.Errorf("with byte %d flipped it is accepted", i)
		}
	}
}

// Twilio may sign the address with its port or without.
func TestSignatureOfAPort(t *testing.T) {
	for _, c := range []struct{ signed, configured string }{
		{"https://a.test/x?y=1", "https://a.test:443/x?y=1"},
		{"https://a.test:443/x?y=1", "https://a.test/x?y=1"},
		{"http://a.test:80/x", "http://a.test/x"},
		{"https://a.test/x", "https://a.test:8443/x"},
		{"https://[::1]:443/x", "https://[::1]/x"},
		{"https://a.test/%7Ex", "https://a.test/%7Ex"},
	} {
		if !client.ValidForm(token, sign(c.signed), c.configured, nil) {
			t.Errorf("signed as %s, configured as %s: refused", c.signed, c.configured)
		}
	}
}

// sign signs an address without fields.
func sign(address string) string {
	mac := hmac.New(sha1.New, []byte(token))
	mac.Write([]byte(address))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestSignatureOfABody(t *testing.T) {
	body := []byte(`{"EventType": "onMessageAdded"}`)
	hash := sha256.Sum256(body)
	address := "https://a.test/x?bodySHA256=" + hex.EncodeToString(hash[:])
	if !client.ValidBody(token, sign(address), address, body) {
		t.Error("a right one is refused")
	}
	for what, accepted := range map[string]bool{
		"another body": client.ValidBody(token, sign(address), address, append(body, ' ')),
		"no hash":      client.ValidBody(token, sign("https://a.test/x"), "https://a.test/x", body),
		"an empty one": client.ValidBody(token, sign("https://a.test/x?bodySHA256="), "https://a.test/x?bodySHA256=", body),
		"no signature": client.ValidBody(token, "", address, body),
	} {
		if accepted {
			t.Errorf("%s is accepted", what)
		}
	}
}

// Our check and the vendor's agree on what the simulator signs, and on what it
// does not.
func TestSignatureBySecondOpinion(t *testing.T) {
	theirs := twilio.NewRequestValidator(token)
	form := url.Values{"Body": {"Grüße & 1+1=2\n"}, "Author": {"a b"}, "Empty": {""}, "Attributes": {`{"a":"b"}`}}
	plain := map[string]string{}
	for k := range form {
		plain[k] = form.Get(k)
	}
	for _, address := range []string{"https://a.test/webhooks/support/conversations", "https://a.test:8443/x?y=%20z", "http://a.test/"} {
		signature := twiliotest.Sign(token, address, form)
		if !client.ValidForm(token, signature, address, form) || !theirs.Validate(address, plain, signature) {
			t.Errorf("%s: a right signature is refused", address)
		}
		if bad := twiliotest.Sign("x", address, form); client.ValidForm(token, bad, address, form) || theirs.Validate(address, plain, bad) {
			t.Errorf("%s: a wrong signature is accepted", address)
		}
	}
}
