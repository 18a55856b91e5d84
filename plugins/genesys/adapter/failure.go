package adapter

import (
	"errors"
	"net/http"
	"strings"

	"github.com/deskhost/deskhost/plugins/genesys/cloud"
	"github.com/deskhost/deskhost/plugins/genesys/webmessaging"
	"github.com/deskhost/deskhost/sdk"
)

// endedError says that a conversation is over, or unknown. Its reason may be shown
// to the user.
type endedError struct {
	kind   sdk.FailureKind
	reason string
}

func (e *endedError) Error() string { return e.reason }

// asEnded returns an [endedError] for an error of the vendor's that means the end of
// a conversation, and any other as it is.
func asEnded(err error) error {
	e := (*cloud.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Status == webmessaging.CodeSessionExpired, e.Code == "credentials.expired":
		return &endedError{sdk.ChatOver, "The conversation has expired."}
	case e.Status == webmessaging.CodeSessionNotFound:
		return &endedError{sdk.ChatUnknown, "The conversation is not known any more."}
	case e.Code == "chat.error.conversation.state", e.Code == "chat.error.member.state":
		return &endedError{sdk.ChatOver, "The conversation has ended."}
	}
	return err
}

// failed is failure, for calls that may have gone well.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure(err)
}

// failure says what a failed call did, and what an operator can do about it.
func failure(err error) *sdk.Failure {
	if f := (*sdk.Failure)(nil); errors.As(err, &f) {
		return f
	}
	if ended := (*endedError)(nil); errors.As(asEnded(err), &ended) {
		return &sdk.Failure{Kind: ended.kind, UserMessage: ended.reason, Err: err}
	}
	if errors.Is(err, cloud.ErrUntrusted) {
		return sdk.Fail(sdk.Invalid, "api_url, region: %w", err)
	}
	if errors.Is(err, errCrowded) {
		return &sdk.Failure{Kind: sdk.Retry, RetryAfter: crowdedPause, Err: err}
	}
	e := (*cloud.Error)(nil)
	if !errors.As(err, &e) {
		return &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: err}
	}
	switch {
	case e.Status == 0 && !e.Sent:
		return &sdk.Failure{Kind: sdk.Retry, Err: err}
	case e.Status == 0, e.Err != nil:
		return &sdk.Failure{Kind: sdk.OutcomeUnknown, Err: err}
	case e.Status == http.StatusTooManyRequests, e.Status == webmessaging.CodeTooManyRequests, e.Status == http.StatusServiceUnavailable:
		return &sdk.Failure{Kind: sdk.Retry, RetryAfter: e.RetryAfter, Err: err}
	case e.Status >= 500 && e.Status < 600, e.Status == codeInternal:
		return &sdk.Failure{Kind: sdk.OutcomeUnknown, RetryAfter: e.RetryAfter, Err: err}
	}
	if key := remedy(e); key != "" {
		return sdk.Fail(sdk.Invalid, "%s (%w)", key, err)
	}
	return &sdk.Failure{Kind: sdk.Invalid, Err: err}
}

// Codes of web messaging that an operator can do something about.
const (
	codeFeatureOff     = 4000
	codeCannotBeGuest  = 4017
	codeInternal       = 5000
	codeOriginUnwanted = http.StatusForbidden
)

// codeAuthRequired is Web Chat's for a deployment that takes signed-in users only.
const codeAuthRequired = "chat.deployment.require.auth"

// remedy names the setting that an error is about, and what to do; empty if it is
// about none.
func remedy(e *cloud.Error) string {
	switch {
	case e.Status >= 300 && e.Status < 400:
		return "region, api_url: the address answers with a redirect; write the one that it leads to"
	case e.Status == codeFeatureOff:
		return "deployment_id: the deployment does not serve this; switch it on in Admin > Message > Messenger Configurations"
	case e.Code == codeAuthRequired, e.Status == codeCannotBeGuest, e.Status == http.StatusUnauthorized:
		return "sign_in: the deployment takes signed-in users only, or not this one; set it to true, and have the page give a valid sign-in token"
	case strings.HasPrefix(e.Code, "chat.deployment."):
		return "deployment_id, organization_id: the organisation has no such deployment, or it is switched off; see Admin > Contact Center > Widgets"
	case e.Code == "chat.error.invalid.queue":
		return "queue: there is no queue of this name, or it takes no chats"
	case e.Code == "origin.not.allowed", e.Status == codeOriginUnwanted:
		return "origin: the deployment does not allow it; write one of the deployment's allowed domains, or add it there"
	}
	return ""
}
