package sdk

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	deskv1 "github.com/deskhost/deskhost/proto/desk/v1"
)

// maxErrorBytes bounds the text of an error: some vendors answer with a whole page.
const maxErrorBytes = 2 << 10

// toStatus turns the error of a desk call into a status that always carries a
// Failure. An error that is no [Failure] says that nobody knows.
func toStatus(err error) error {
	detail := &deskv1.Failure{Kind: deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN, Message: errorText(err.Error())}
	var f *Failure
	if errors.As(err, &f) && f != nil {
		detail.Kind = toFailureKind(f.Kind)
		detail.UserMessage = errorText(f.UserMessage)
		if f.RetryAfter > 0 {
			detail.RetryAfter = durationpb.New(f.RetryAfter)
		}
	}
	st, detailErr := status.New(toCode(detail.GetKind(), err), detail.GetMessage()).WithDetails(detail)
	if detailErr != nil {
		return status.Error(codes.Internal, detailErr.Error())
	}
	return st.Err()
}

func toFailureKind(k FailureKind) deskv1.FailureKind {
	switch k {
	case Retry:
		return deskv1.FailureKind_FAILURE_KIND_RETRY
	case ChatOver:
		return deskv1.FailureKind_FAILURE_KIND_CHAT_OVER
	case ChatUnknown:
		return deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN
	case Invalid:
		return deskv1.FailureKind_FAILURE_KIND_INVALID
	case Unsupported:
		return deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED
	case Refused:
		return deskv1.FailureKind_FAILURE_KIND_REFUSED
	default:
		return deskv1.FailureKind_FAILURE_KIND_OUTCOME_UNKNOWN
	}
}

// toCode is for tools that know gRPC and not the detail.
func toCode(k deskv1.FailureKind, err error) codes.Code {
	switch k {
	case deskv1.FailureKind_FAILURE_KIND_RETRY:
		return codes.Unavailable
	case deskv1.FailureKind_FAILURE_KIND_CHAT_OVER, deskv1.FailureKind_FAILURE_KIND_REFUSED:
		return codes.FailedPrecondition
	case deskv1.FailureKind_FAILURE_KIND_CHAT_UNKNOWN:
		return codes.NotFound
	case deskv1.FailureKind_FAILURE_KIND_INVALID:
		return codes.InvalidArgument
	case deskv1.FailureKind_FAILURE_KIND_UNSUPPORTED:
		return codes.Unimplemented
	default:
		// The outcome is unknown: only the error may tell more.
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	default:
		return codes.Unknown
	}
}

func errorText(s string) string {
	if len(s) > maxErrorBytes {
		s = s[:maxErrorBytes] + " (cut)"
	}
	return valid(s)
}
