package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type claims = map[string]any

func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, id string, c claims) string {
	t.Helper()
	options := new(jose.SignerOptions)
	if id != "" {
		options.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func writeKeys(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, data)
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func must[K any](t *testing.T) func(K, error) K {
	return func(key K, err error) K {
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}

func public(key crypto.Signer, id string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: id}
}

func TestVerify(t *testing.T) {
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	ecKey := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	v := must[*Verifier](t)(Load(writeKeys(t, public(rsaKey, "r"), public(ecKey, "e"), public(edKey, ""))))

	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	good := claims{"sub": "u1", "name": "Ann", "exp": at(time.Hour)}
	unsigned := func(header string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(header)) + "." + encode([]byte(`{"sub":"u1","exp":9999999999}`)) + "."
	}
	for name, test := range map[string]struct {
		token string
		want  User
		err   string
	}{
		"RSA with kid":          {token: sign(t, jose.RS256, rsaKey, "r", good), want: User{"u1", "Ann"}},
		"EC with kid":           {token: sign(t, jose.ES256, ecKey, "e", good), want: User{"u1", "Ann"}},
		"EC without kid":        {token: sign(t, jose.ES256, ecKey, "", good), want: User{"u1", "Ann"}},
		"Ed25519":               {token: sign(t, jose.EdDSA, edKey, "", good), want: User{"u1", "Ann"}},
		"no name":               {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": "u1", "exp": at(time.Hour)}), want: User{"u1", ""}},
		"expired within leeway": {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": "u1", "exp": at(-Leeway / 2)}), want: User{"u1", ""}},
		"expired":               {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": "u1", "exp": at(-2 * Leeway)}), err: "has expired (exp)"},
		"not yet valid":         {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": "u1", "exp": at(time.Hour), "nbf": at(2 * Leeway)}), err: "not valid yet (nbf)"},
		"no exp":                {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": "u1"}), err: "has no exp"},
		"no sub":                {token: sign(t, jose.EdDSA, edKey, "", claims{"exp": at(time.Hour)}), err: "has no sub"},
		"long sub":              {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": strings.Repeat("x", 257), "exp": at(time.Hour)}), err: "over 256 bytes"},
		"sub of wrong type":     {token: sign(t, jose.EdDSA, edKey, "", claims{"sub": 1, "exp": at(time.Hour)}), err: "wrong types"},
		"stranger's key":        {token: sign(t, jose.ES256, stranger, "", good), err: "not signed by a key of the JWKS file"},
		"stranger's, our kid":   {token: sign(t, jose.ES256, stranger, "e", good), err: "not signed by a key of the JWKS file"},
		"unknown kid":           {token: sign(t, jose.ES256, ecKey, "gone", good), err: "names a key (kid)"},
		"algorithm none":        {token: unsigned(`{"alg":"none"}`), err: "algorithm other than"},
		"HMAC":                  {token: sign(t, jose.HS256, []byte(strings.Repeat("k", 32)), "", good), err: "algorithm other than"},
		"not a token":           {token: "hello", err: "not a signed JWT"},
		"empty":                 {token: "", err: "not a signed JWT"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(test.token, now)
			if test.err == "" {
				if err != nil || got != test.want {
					t.Errorf("got %+v, %v, want %+v", got, err, test.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error is %v, want one with %q", err, test.err)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	ecKey := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for name, test := range map[string]struct{ file, err string }{
		"missing":     {filepath.Join(t.TempDir(), "gone"), "cannot be read: no such file or directory"},
		"not JSON":    {writeFile(t, []byte("-----BEGIN")), "not a key set"},
		"no keys":     {writeFile(t, []byte(`{"keys":[]}`)), "holds no key"},
		"other JSON":  {writeFile(t, []byte(`{"a":1}`)), "holds no key"},
		"private key": {writeKeys(t, jose.JSONWebKey{Key: ecKey}), "key 1 of"},
		"symmetric":   {writeKeys(t, jose.JSONWebKey{Key: []byte("0123456789abcdef")}), "private or symmetric"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(test.file); err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error is %v, want one with %q", err, test.err)
			}
		})
	}
}
