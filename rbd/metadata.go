package rbd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"backy/store"
)

// An image's metadata (rbd image-meta) is not of its snapshots: a level has it as
// it was when the backup ran.

const (
	// maxMetadata bounds what a level's record takes of it, in bytes.
	maxMetadata = 256 << 10

	// stateMetadata is what the keys begin with by which librbd notes a state of
	// the image, such as that of a cache: they are of no other image.
	stateMetadata = ".librbd/"

	// qosMetadata is what the keys of its QoS begin with, which would slow down a
	// restore.
	qosMetadata = "conf_rbd_qos_"
)

// Metadata says what a restore does about the metadata of a level.
type Metadata int

// The choices.
const (
	MetadataNew    Metadata = iota // a new image gets it
	MetadataAlways                 // one that exists, too
	MetadataNever
)

// recordMetadata is the metadata as a level has it: without what is of this image
// alone, is no text, or is too much. What is missing is warned of. nil if it is
// unknown.
func (s *Source) recordMetadata() map[string]string {
	if s.metadataErr != nil {
		s.run.Warn("the level is without the image's metadata: %v", s.metadataErr)
		return nil
	}
	kept, left := boundMetadata(s.metadata)
	if len(left) > 0 {
		s.run.Warn("%s: %d of its metadata are not in the level, since they are no text or too large: %q", s.spec.at(""), len(left), left)
	}
	return kept
}

func boundMetadata(all map[string]string) (kept map[string]string, left []string) {
	kept = map[string]string{}
	room := maxMetadata
	for _, key := range slices.Sorted(maps.Keys(all)) {
		value := all[key]
		switch {
		case strings.HasPrefix(key, stateMetadata):
		case !utf8.ValidString(key + value), len(key)+len(value) > room:
			left = append(left, key)
		default:
			kept[key] = value
			room -= len(key) + len(value)
		}
	}
	return kept, left
}

// setMetadata gives the image a level's metadata, once all is written: the QoS
// last. What this librbd refuses is warned of.
func (t *Target) setMetadata(ctx context.Context) error {
	keys := slices.SortedFunc(maps.Keys(t.metadata), func(a, b string) int {
		qosA, qosB := strings.HasPrefix(a, qosMetadata), strings.HasPrefix(b, qosMetadata)
		switch {
		case qosA == qosB:
			return strings.Compare(a, b)
		case qosA:
			return 1
		}
		return -1
	})
	for _, key := range keys {
		if strings.HasPrefix(key, stateMetadata) {
			continue
		}
		what := fmt.Sprintf("set the metadata %q of %s", key, t.spec)
		err := do(ctx, &t.im.calls, what, func() error { return t.im.rbd.SetMetadata(key, t.metadata[key]) })
		switch errnoOf(err) {
		case syscall.EINVAL, syscall.ENOENT, syscall.ENOTSUP: // a setting that it does not know
			t.warn("%s: this librbd does not take the metadata %q %q", t.spec, key, t.metadata[key])
			continue
		}
		if err != nil {
			return t.conn.named(err, "%s", what)
		}
	}
	return nil
}

// chooseMetadata picks what the image will get.
func (t *Target) chooseMetadata(level store.Level) {
	o := level.Origin.RBD
	switch {
	case t.options.Metadata == MetadataNever, t.options.Metadata == MetadataNew && !t.created:
	case o == nil || o.Metadata == nil:
		if t.options.Metadata == MetadataAlways {
			t.warn("%s: the level has no metadata", t.spec)
		}
	default:
		t.metadata = o.Metadata
	}
}
