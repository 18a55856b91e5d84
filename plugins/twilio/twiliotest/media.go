package twiliotest

import (
	"io"
	"net/http"
)

// maxMedia bounds a file, in bytes.
const maxMedia = 16 << 20

// media is a file that was uploaded, as its message tells of it. What is in it
// nobody asks for.
type media struct {
	Sid         string `json:"sid"`
	Filename    string `json:"filename"`
	ContentType string `json:"content_type"`
	Size        int    `json:"size"`
}

// upload takes a file. It is no form, so it does not come by way of serve.
func (s *Simulator) upload(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(r) {
		encode(fail(http.StatusUnauthorized, codeUnauthorized, "Authenticate")).write(w)
		return
	}
	if r.PathValue("service") != ChatServiceSid {
		encode(fail(http.StatusNotFound, codeNotFound, "The requested resource %s was not found", r.URL.Path)).write(w)
		return
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMedia))
	if err != nil || len(content) == 0 || r.Header.Get("Content-Type") == "" {
		encode(invalid("A file has 1 to %d bytes and a Content-Type", maxMedia)).write(w)
		return
	}
	m := media{newSid("ME"), r.URL.Query().Get("Filename"), r.Header.Get("Content-Type"), len(content)}
	s.mu.Lock()
	s.media[m.Sid] = m
	s.mu.Unlock()
	encode(http.StatusCreated, map[string]any{
		"sid": m.Sid, "service_sid": ChatServiceSid, "account_sid": AccountSid, "filename": m.Filename, "content_type": m.ContentType,
		"size": m.Size, "date_created": now(),
	}).write(w)
}
