package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Code says what kind of failure an error is. It is stable and decides the
// exit code of a command.
type Code string

// The codes, with their exit codes.
const (
	CodeInternal    Code = "E_INTERNAL"    // 1: something failed that has no code of its own
	CodeUsage       Code = "E_USAGE"       // 2: the request is wrong
	CodeConfig      Code = "E_CONFIG"      // 3: a configuration or run file is wrong (file:line: key)
	CodeDaemon      Code = "E_DAEMON"      // 4: no daemon answers
	CodeAuth        Code = "E_AUTH"        // 5: token missing or wrong
	CodeNotFound    Code = "E_NOTFOUND"    // 6: no such run, model, data set, round or file
	CodeConflict    Code = "E_CONFLICT"    // 7: already there or in use
	CodeRAM         Code = "E_RAM"         // 10: does not fit into memory
	CodeVRAM        Code = "E_VRAM"        // 10: does not fit into the GPU's memory
	CodeDisk        Code = "E_DISK"        // 11: not enough space
	CodeGPU         Code = "E_GPU"         // 12: the requested GPU cannot be used
	CodeNet         Code = "E_NET"         // 13: no peer could be reached
	CodeIntegrity   Code = "E_INTEGRITY"   // 14: a hash or signature does not match
	CodeVersion     Code = "E_VERSION"     // 15: protocol or program too old or too new
	CodeRefused     Code = "E_REFUSED"     // 16: not allowed, by a peer or a licence
	CodeData        Code = "E_DATA"        // 17: a data set was refused
	CodeModel       Code = "E_MODEL"       // 17: a model was refused or is not supported
	CodeVerify      Code = "E_VERIFY"      // 18: a result did not stand its test
	CodeRetry       Code = "E_RETRY"       // 75: temporary
	CodeInterrupted Code = "E_INTERRUPTED" // 130: by the one who asked
)

var codes = map[Code]struct{ exit, status int }{
	CodeInternal:    {1, http.StatusInternalServerError},
	CodeUsage:       {2, http.StatusBadRequest},
	CodeConfig:      {3, http.StatusUnprocessableEntity},
	CodeDaemon:      {4, http.StatusBadGateway},
	CodeAuth:        {5, http.StatusUnauthorized},
	CodeNotFound:    {6, http.StatusNotFound},
	CodeConflict:    {7, http.StatusConflict},
	CodeRAM:         {10, http.StatusUnprocessableEntity},
	CodeVRAM:        {10, http.StatusUnprocessableEntity},
	CodeDisk:        {11, http.StatusInsufficientStorage},
	CodeGPU:         {12, http.StatusUnprocessableEntity},
	CodeNet:         {13, http.StatusGatewayTimeout},
	CodeIntegrity:   {14, http.StatusUnprocessableEntity},
	CodeVersion:     {15, http.StatusUnprocessableEntity},
	CodeRefused:     {16, http.StatusForbidden},
	CodeData:        {17, http.StatusUnprocessableEntity},
	CodeModel:       {17, http.StatusUnprocessableEntity},
	CodeVerify:      {18, http.StatusUnprocessableEntity},
	CodeRetry:       {75, http.StatusServiceUnavailable},
	CodeInterrupted: {130, 499}, // 499 as nginx has it: the asker went away
}

// Exit is the exit code of a command that ends with this error.
func (c Code) Exit() int {
	if k, ok := codes[c]; ok {
		return k.exit
	}
	return 1
}

// Error is a failure as it is told to people and programs.
type Error struct {
	Code    Code   `json:"code"`
	Exit    int    `json:"exit"`
	Message string `json:"message"`        // what and where
	Hint    string `json:"hint,omitempty"` // the way out

	status int   // of HTTP, 0: by Code
	cause  error // for errors.Is on this side
}

// Errorf makes an Error. A cause that is formatted with %w can be found by
// errors.Is.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Exit: code.Exit(), Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithHint returns e with the way out.
func (e *Error) WithHint(format string, args ...any) *Error {
	n := *e
	n.Hint = fmt.Sprintf(format, args...)
	return &n
}

// Error implements error. The hint is not part of it.
func (e *Error) Error() string { return e.Message }

// Unwrap returns what was formatted with %w.
func (e *Error) Unwrap() error { return e.cause }

// HTTPStatus is the status with which the error is answered.
func (e *Error) HTTPStatus() int {
	if e.status != 0 {
		return e.status
	}
	if k, ok := codes[e.Code]; ok {
		return k.status
	}
	return http.StatusInternalServerError
}

// AsError finds the Error in err, or makes one. Text that was put around an
// Error stays part of the message; nil gives nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e := new(Error); errors.As(err, &e) {
		n := *e
		n.Message = err.Error()
		if n.Exit == 0 {
			n.Exit = n.Code.Exit()
		}
		return &n
	}
	code := CodeInternal
	switch {
	case errors.Is(err, context.Canceled):
		code = CodeInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		code = CodeRetry
	}
	return Errorf(code, "%w", err)
}
