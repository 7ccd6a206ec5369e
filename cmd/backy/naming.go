package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	"backy/store"
)

const defaultNames = "{{.Pool}}/{{with .Namespace}}{{.}}/{{end}}{{.Image}}"

// imagePlace is what --name-template has of an image.
type imagePlace struct{ Pool, Namespace, Image string }

// RBD lets nearly any bytes be an image's name, and backup names are pickier. An
// image whose own name, or whose backup name by the template, cannot be one gets
// a derived name: what of it can be kept, a "~", and 16 hex digits of the checksum of
// pool, namespace and image. The same image always gets the same name. No two
// images get the same: an image that is called as if its name were derived gets a
// derived name, too.

var derivedName = regexp.MustCompile(`~[0-9a-f]{16}$`)

// naming returns what names images in the repository.
func (f *pickFlags) naming() (func(imagePlace) (store.Name, error), error) {
	text := f.names
	if text == "" {
		text = defaultNames
	}
	t, err := template.New("name").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, usagef("--name-template: %s", strings.TrimPrefix(err.Error(), "template: "))
	}
	fill := func(i imagePlace) (string, error) {
		var b strings.Builder
		if err := t.Execute(&b, i); err != nil {
			return "", fmt.Errorf("--name-template: %s", strings.TrimPrefix(err.Error(), "template: "))
		}
		return b.String(), nil
	}
	if example, err := fill(imagePlace{"pool", "namespace", "image"}); err != nil {
		return nil, &usageError{err}
	} else if _, err := store.ParseName(example); err != nil {
		return nil, &usageError{err}
	}
	return func(i imagePlace) (store.Name, error) {
		plain := i.plain()
		text, err := fill(plain)
		if err != nil {
			return "", err
		}
		printable := plainText(text)
		name, err := store.ParseName(printable)
		if plain == i && printable == text && err == nil && !derivedName.MatchString(text) {
			return name, nil
		}
		return i.derive(printable)
	}, nil
}

// plain is the place with names of which each can be a part of a backup name, and
// none can be taken for several.
func (i imagePlace) plain() imagePlace {
	return imagePlace{plainPart(i.Pool), plainPart(i.Namespace), plainPart(i.Image)}
}

func plainPart(s string) string {
	if s == "." || s == ".." {
		return strings.Repeat("_", len(s))
	}
	return strings.NewReplacer("/", "_", "@", "_").Replace(plainText(s))
}

// plainText replaces what cannot be printed.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
}

// derive makes the backup name that begins as text does. Text that the template
// made unfit is an error.
func (i imagePlace) derive(text string) (store.Name, error) {
	sum := blake3.Sum256([]byte(i.Pool + "\x00" + i.Namespace + "\x00" + i.Image))
	tail := "~" + hex.EncodeToString(sum[:8])
	for {
		name, err := store.ParseName(text + tail)
		if !errors.Is(err, store.ErrNameTooLong) || text == "" {
			return name, err
		}
		_, last := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-last]
	}
}
