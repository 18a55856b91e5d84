// Package identity tells who a user is by the token that the page's own site
// signed.
//
// It owns the check of an identity token, a JWT, against the public keys of
// one JWKS file (RFC 7517): signature, exp, nbf, sub. It keeps nothing of the
// tokens it sees, its errors repeat nothing of them, and it knows no sessions.
// The widgets' door calls it.
package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Leeway is how far the clocks of signer and host may differ.
const Leeway = time.Minute

// MaxSubjectBytes bounds a token's sub.
const MaxSubjectBytes = 256

// algorithms leaves out "none" and the symmetric ones: whoever could check an
// HMAC could also sign.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// User is who a token speaks for.
type User struct {
	// ID is the token's sub.
	ID string
	// Name is the token's name; may be empty.
	Name string
}

// Verifier checks tokens. It may be used concurrently.
type Verifier struct{ keys jose.JSONWebKeySet }

// Load reads a JWKS file. Every key in it must be a public one.
func Load(file string) (*Verifier, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err
		}
		return nil, fmt.Errorf("JWKS file %s cannot be read: %w", file, err)
	}
	v := new(Verifier)
	// go-jose's own errors may quote the file, which could hold a private key.
	if json.Unmarshal(data, &v.keys) != nil {
		return nil, fmt.Errorf(`JWKS file %s is not a key set of the form {"keys": [...]} (RFC 7517)`, file)
	}
	if len(v.keys.Keys) == 0 {
		return nil, fmt.Errorf("JWKS file %s holds no key of a kind that can be used; RSA, EC and Ed25519 public keys are", file)
	}
	for i, key := range v.keys.Keys {
		if !key.IsPublic() {
			return nil, fmt.Errorf("key %d of JWKS file %s is private or symmetric; put public keys there only", i+1, file)
		}
		if !key.Valid() {
			return nil, fmt.Errorf("key %d of JWKS file %s is not valid", i+1, file)
		}
	}
	return v, nil
}

// Verify checks a token as of now. The error says what is wrong with the token
// in words for a developer.
func (v *Verifier) Verify(token string, now time.Time) (User, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return User{}, errors.New("the identity token is signed by an algorithm other than RS256, RS384, RS512, ES256, ES384, ES512 or EdDSA")
	}
	if err != nil {
		return User{}, errors.New("the identity token is not a signed JWT in compact form")
	}
	var (
		claims jwt.Claims
		more   struct {
			Name string `json:"name"`
		}
	)
	if err := v.claims(parsed, &claims, &more); err != nil {
		return User{}, err
	}
	if claims.Expiry == nil {
		return User{}, errors.New("the identity token has no exp")
	}
	err = claims.ValidateWithLeeway(jwt.Expected{Time: now}, Leeway)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return User{}, errors.New("the identity token has expired (exp)")
	case errors.Is(err, jwt.ErrNotValidYet):
		return User{}, errors.New("the identity token is not valid yet (nbf)")
	case errors.Is(err, jwt.ErrIssuedInTheFuture):
		return User{}, errors.New("the identity token was issued in the future (iat); check the signer's clock")
	case err != nil:
		return User{}, errors.New("the identity token's claims are not valid")
	case claims.Subject == "":
		return User{}, errors.New("the identity token has no sub")
	case len(claims.Subject) > MaxSubjectBytes:
		return User{}, fmt.Errorf("the identity token's sub is over %d bytes", MaxSubjectBytes)
	}
	return User{ID: claims.Subject, Name: more.Name}, nil
}

// claims fills in the claims if one of the keys signed the token.
func (v *Verifier) claims(token *jwt.JSONWebToken, into ...any) error {
	candidates := v.keys.Keys
	if id := token.Headers[0].KeyID; id != "" {
		if candidates = v.keys.Key(id); len(candidates) == 0 {
			return errors.New("the identity token names a key (kid) that is not in the JWKS file")
		}
	}
	for _, key := range candidates {
		err := token.Claims(key, new(json.RawMessage))
		if err != nil {
			continue
		}
		if token.Claims(key, into...) != nil {
			return errors.New("the identity token's claims have wrong types")
		}
		return nil
	}
	return errors.New("the identity token is not signed by a key of the JWKS file")
}
