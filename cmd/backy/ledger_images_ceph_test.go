//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"backy/rbd"
	"backy/store"
)

// What happens to the images of a ledger.

// images are those that are there, and their ids.
func (b *book) images() map[rbd.Spec]store.ImageID {
	b.Helper()
	specs, err := b.conn.List(b.Context(), rbd.PoolSpec{Pool: b.pool, All: true})
	b.must(err)
	m := map[rbd.Spec]store.ImageID{}
	for _, s := range specs {
		info, err := b.conn.Look(b.Context(), s, "")
		b.must(err)
		m[s] = info.ID
	}
	return m
}

// some picks one of the images that are there.
func (b *book) some() (rbd.Spec, bool) {
	specs := slices.SortedFunc(maps.Keys(b.images()), func(x, y rbd.Spec) int { return strings.Compare(x.String(), y.String()) })
	if len(specs) == 0 {
		return rbd.Spec{}, false
	}
	return specs[b.random.IntN(len(specs))], true
}

// free picks a place where no image is.
func (b *book) free(namespace string) (rbd.Spec, bool) {
	images := b.images()
	for range 10 {
		s := rbd.Spec{Pool: b.pool, Namespace: namespace, Image: b.pick([]string{"a", "b", "c"})}
		if _, taken := images[s]; !taken {
			return s, true
		}
	}
	return rbd.Spec{}, false
}

func (b *book) anyNamespace() string { return b.pick([]string{"", "", "n"}) }

// path is how Ceph's tools name an image.
func imagePath(s rbd.Spec) string { return strings.TrimPrefix(s.String(), rbdScheme) }

func (b *book) create() {
	s, ok := b.free(b.anyNamespace())
	if !ok {
		return
	}
	features := b.pick([]string{"layering", "layering,exclusive-lock,object-map,fast-diff"})
	b.rbd("create", "--size", b.pick([]string{"1M", "2M", "3M"}), "--object-size", "128K", "--image-feature", features, imagePath(s))
	b.change(s)
}

// change writes an extent of an image, discards one, or gives it another size.
func (b *book) change(s rbd.Spec) {
	info, err := b.conn.Look(b.Context(), s, "")
	b.must(err)
	size := info.Size
	at := b.random.Int64N(size)
	length := 1 + b.random.Int64N(size-at)
	switch b.random.IntN(6) {
	case 0:
		size = 1 + b.random.Int64N(4<<20)
		b.note("resize %s to %d", s, size)
		writeExtents(b.T, b.cluster, imagePath(s), size, nil)
	case 1:
		b.note("discard %s %d+%d", s, at, length)
		b.discard(s, size, at, length)
	default:
		b.note("write %s %d+%d", s, at, length)
		writeExtents(b.T, b.cluster, imagePath(s), size, map[int64][]byte{at: b.some64K(length)})
	}
}

// discard is writeExtents for a hole.
func (b *book) discard(s rbd.Spec, size, at, length int64) {
	writeDiff(b.T, b.cluster, imagePath(s), size, func(d *bytes.Buffer) {
		d.WriteByte('z')
		d.Write(le64(uint64(at)))
		d.Write(le64(uint64(length)))
	})
}

// some64K are bytes of a few kinds, so that images share chunks.
func (b *book) some64K(length int64) []byte {
	p := make([]byte, length)
	kind := byte(b.random.IntN(5))
	for i := range p {
		p[i] = kind + byte(i>>14)
	}
	return p
}

// happen does something to the images.
func (b *book) happen() {
	s, ok := b.some()
	if !ok {
		b.create()
		return
	}
	switch b.random.IntN(9) {
	case 0:
		b.create()
	case 1: // renamed
		if to, ok := b.free(s.Namespace); ok {
			b.rbd("rename", imagePath(s), imagePath(to))
		}
	case 2: // copied
		if to, ok := b.free(s.Namespace); ok {
			b.rbd("deep", "cp", "--no-progress", imagePath(s), imagePath(to))
		}
	case 3: // removed, and mostly made again
		b.rbd("snap", "purge", "--no-progress", imagePath(s))
		b.rbd("rm", "--no-progress", imagePath(s))
		if b.random.IntN(4) > 0 {
			b.rbd("create", "--size", "2M", "--object-size", "128K", imagePath(s))
			b.change(s)
		}
	case 4:
		b.rbd("trash", "mv", imagePath(s))
	case 5:
		for id, namespace := range b.trash() {
			if to, ok := b.free(namespace); ok {
				b.rbd("trash", "restore", "--pool", b.pool, "--namespace", namespace, "--image-id", id, "--image", to.Image)
			}
			break
		}
	default:
		b.change(s)
	}
}

// trash are the ids of the images in it, with their namespaces.
func (b *book) trash() map[string]string {
	ids := map[string]string{}
	for _, namespace := range []string{"", "n"} {
		var list []struct{ ID string }
		out := b.cluster.Run(b, "rbd", "trash", "ls", "--format", "json", "--pool", b.pool, "--namespace", namespace)
		b.must(json.Unmarshal([]byte(out), &list))
		for _, i := range list {
			ids[i.ID] = namespace
		}
	}
	return ids
}

// content reads an image by Ceph's own tool.
func (b *book) content(s rbd.Spec) []byte {
	b.Helper()
	out, err := b.cluster.Command("rbd", "export", "--no-progress", imagePath(s), "-").Output()
	b.must(err)
	return out
}
