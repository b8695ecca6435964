package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Exit codes, those of images/core/errors.py.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNothing  = 3
	exitNoImage  = 4
	exitRegistry = 6
	exitUnsafe   = 7
)

// Failure is an error as a person reads it: what happened, its likely cause, what to do, where to look.
type Failure struct {
	Exit  int    `json:"exit"`
	What  string `json:"what"`
	Cause string `json:"cause"`
	Do    string `json:"do"`
	Where string `json:"where"`
}

func (f *Failure) Error() string { return f.What }

// lines is the failure as it is printed.
func (f *Failure) lines() string {
	out := []string{f.What}
	for _, part := range [][2]string{{"cause", f.Cause}, {"do", f.Do}, {"where", f.Where}} {
		if part[1] != "" {
			out = append(out, fmt.Sprintf("  %s: %s", part[0], part[1]))
		}
	}
	return strings.Join(out, "\n")
}

// asFailure gives every error the form of one.
func asFailure(err error) *Failure {
	var failure *Failure
	if errors.As(err, &failure) {
		return failure
	}
	return &Failure{Exit: exitFailed, What: err.Error()}
}

// readBounded reads all of a stream of at most `most` bytes.
func readBounded(from io.Reader, most int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(from, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return raw, err
}

// printable is text from outside without what a terminal would obey, and not longer than a person reads.
func printable(text string, most int) string {
	out := make([]rune, 0, len(text))
	for _, letter := range text {
		if len(out) == most {
			break
		}
		if !unicode.IsPrint(letter) {
			letter = '?'
		}
		out = append(out, letter)
	}
	return string(out)
}
