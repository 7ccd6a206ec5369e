package rbd

import (
	"fmt"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Versions are those of the libraries that are in use, as they tell them: the
// second number of librbd's is Ceph's release.
func Versions() (librbd, librados string) {
	dotted := func(major, minor, patch int) string { return fmt.Sprintf("%d.%d.%d", major, minor, patch) }
	return dotted(rbd.Version()), dotted(rados.Version())
}
