//go:build !cgo

package main

import (
	"context"
	"errors"

	"backy/engine"
	"backy/engine/batch"
	"backy/engine/health"
	"backy/store"
)

// errNoRBD tells that this build has no librbd.
var errNoRBD = errors.New("this backy was built without librbd, so it can restore, scrub and list, but not read or write rbd: images: use the full build")

// connection is what this build has none of.
type connection struct{}

func (p *program) rbdSource(context.Context, string, backupFlags, bool) (engine.Source, error) {
	return nil, errNoRBD
}

func (p *program) isMany(context.Context, string, bool) (bool, error) { return false, errNoRBD }

func (p *program) lookMany(context.Context, backupFlags, string, place) (*store.Repository, batch.Pool, []batch.Image, error) {
	return nil, nil, nil, errNoRBD
}

func (p *program) poolStatus(context.Context, *store.Repository, statusFlags, string) (health.Report, strays, error) {
	return health.Report{}, strays{}, errNoRBD
}

func (p *program) snapshots(context.Context, snapshotsFlags, string, string) error { return errNoRBD }

func (p *program) rbdView(context.Context, string) (*engine.View, error) {
	return nil, errNoRBD
}

func (p *program) rbdTarget(context.Context, string, targetFlags) (engine.Target, error) {
	return nil, errNoRBD
}

func (p *program) unreported() bool { return false }

func childMain([]string) (code int, ok bool) { return 0, false }

func imageExists(error) bool { return false }

func isOthersName(error) bool { return false }

func cephVersions() (librbd, librados string) { return "", "" }
