package genesystest

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
)

// maxFileKB bounds a file.
const maxFileKB = 10240

// file is what an agent or a guest sends beside a text.
type file struct {
	id, name, kind string
	size           int
	content        []byte
	// Of a guest's file: whose it is, and whether it has come.
	session  *session
	uploaded bool
}

func (s *Server) fileRoutes() {
	s.routes.HandleFunc("GET /files/{id}/{name}", s.call("file", s.serveFile))
	s.routes.HandleFunc("PUT /files/{id}/{name}", s.call("upload", s.serveUpload))
}

// sent makes a file of an agent's.
func (s *Server) sent(name string, content []byte) *file {
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "application/octet-stream"
	}
	f := &file{id: newID(), name: name, kind: kind, size: len(content), content: content, uploaded: true}
	s.files[f.id] = f
	return f
}

func (f *file) url(base string) string { return base + "/files/" + f.id + "/" + f.name }

func (f *file) attachment(url string) *attachment {
	media := "File"
	for _, m := range []string{"Image", "Audio", "Video"} {
		if strings.HasPrefix(f.kind, strings.ToLower(m)+"/") {
			media = m
		}
	}
	return &attachment{ID: f.id, Filename: f.name, MediaType: media, FileSize: f.size, Mime: f.kind, URL: url}
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	f := s.files[r.PathValue("id")]
	found := f != nil && f.uploaded
	s.mu.Unlock()
	if !found {
		writeError(w, errNotFound)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.name}))
	_, _ = w.Write(f.content) // the caller has gone if this fails
}

// uploadTag has to come back with a guest's file, as a header.
const uploadTag = "abc"

func (x *session) onAttachment(k *socket, r *request) (refused *reply) {
	switch {
	case r.AttachmentID == "" || r.FileName == "" || r.FileType == "" || r.FileSize == 0:
		return failure(4020, "attachmentId, fileName, fileType, fileSize: missing parameter", r.TracingID)
	case strings.EqualFold(path.Ext(r.FileName), ".exe"):
		return failure(4001, "file type not allowed", r.TracingID)
	case r.FileSize > maxFileKB<<10:
		return failure(4002, "file too large", r.TracingID)
	case strings.ContainsAny(r.FileName, "/\\?#%"):
		return failure(4004, "file name not allowed", r.TracingID)
	}
	f := &file{id: r.AttachmentID, name: r.FileName, kind: r.FileType, size: int(r.FileSize), session: x}
	x.s.files[f.id] = f
	k.push(response("PresignedUrlResponse", map[string]any{
		"attachmentId": f.id, "headers": map[string]string{"x-amz-tagging": uploadTag}, "url": f.url(x.base),
		"fileName": f.name, "fileSize": f.size, "fileType": f.kind,
	}, r.TracingID))
	return nil
}

func (x *session) deleteAttachment(r *request) (refused *reply) {
	f := x.s.files[r.AttachmentID]
	if f == nil || f.session != x {
		return failure(4009, "attachment not found", r.TracingID)
	}
	delete(x.s.files, f.id)
	return nil
}

// attached returns the files that a message names.
func (x *session) attached(m *guestMessage, tracingID string) (files []*file, refused *reply) {
	for i := range m.Content {
		a := m.Content[i].Attachment
		if a == nil {
			continue
		}
		f := x.s.files[a.ID]
		switch {
		case f == nil || f.session != x:
			return nil, failure(4009, "attachment not found", tracingID)
		case !f.uploaded:
			return nil, failure(4010, "attachment not uploaded", tracingID)
		}
		files = append(files, f)
	}
	return files, nil
}

// serveUpload takes a guest's file and tells the guest's connections.
func (s *Server) serveUpload(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFileKB<<10))
	if err != nil {
		writeError(w, badRequest("The file did not come."))
		return
	}
	if err := s.upload(r, content); err != nil {
		writeError(w, err)
	}
}

func (s *Server) upload(r *http.Request, content []byte) *apiError {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[r.PathValue("id")]
	switch {
	case f == nil || f.session == nil || f.uploaded:
		return errNotFound
	case r.Header.Get("X-Amz-Tagging") != uploadTag:
		return errForbidden
	case len(content) != f.size:
		f.session.pass(notice("UploadFailureEvent", map[string]any{
			"attachmentId": f.id, "errorCode": 4002, "timestamp": s.stamp(),
			"errorMessage": fmt.Sprintf("%d bytes were announced", f.size),
		}))
	default:
		f.content, f.uploaded = content, true
		f.session.pass(notice("UploadSuccessEvent", map[string]any{
			"attachmentId": f.id, "downloadUrl": f.url(f.session.base), "timestamp": s.stamp(),
		}))
	}
	return nil
}
