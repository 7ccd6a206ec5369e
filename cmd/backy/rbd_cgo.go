//go:build cgo

package main

import (
	"context"
	"errors"

	"backy/engine"
	"backy/rbd"
)

// connect connects to the cluster that the flags name, until the run's end.
func (p *program) connect(ctx context.Context) (*rbd.Conn, error) {
	f := p.common.ceph
	conn, err := rbd.Connect(ctx, rbd.Config{
		Conf: f.conf, Cluster: f.cluster, ID: f.id, Name: f.name, Keyring: f.keyring, Timeout: f.timeout,
	})
	if err != nil {
		return nil, err
	}
	p.atEnd(conn.Close)
	p.talk.detail("connected to cluster %s", conn.FSID())
	return conn, nil
}

func parseSpec(arg string) (rbd.Spec, error) {
	spec, err := rbd.ParseSpec(arg)
	if err != nil {
		return spec, &usageError{err}
	}
	return spec, nil
}

// rbdSource makes a source of an image. With look, it makes sure that the image
// is there.
func (p *program) rbdSource(ctx context.Context, arg, diff string, look bool) (engine.Source, error) {
	spec, err := parseSpec(arg)
	if err != nil {
		return nil, err
	}
	way, err := rbd.ParseDiff(diff)
	if err != nil {
		return nil, &usageError{err}
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	if look {
		_, closer, err := conn.View(ctx, spec)
		if err != nil {
			return nil, err
		}
		if err := closer.Close(); err != nil {
			return nil, err
		}
	}
	return conn.Source(spec, rbd.SourceOptions{Diff: way}), nil
}

func (p *program) rbdView(ctx context.Context, arg string) (*engine.View, error) {
	spec, err := parseSpec(arg)
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	view, closer, err := conn.View(ctx, spec)
	if err != nil {
		return nil, err
	}
	p.atEnd(closer.Close)
	return &view, nil
}

func (p *program) rbdTarget(ctx context.Context, arg string, force bool) (engine.Target, error) {
	spec, err := parseSpec(arg)
	if err != nil {
		return nil, err
	}
	if spec.Snap != "" {
		return nil, usagef("%s: a snapshot cannot be written to", arg)
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Target(spec, rbd.TargetOptions{Force: force, Warn: p.talk.warn}), nil
}

// imageExists tells the error that -f gets over.
func imageExists(err error) bool { return errors.Is(err, rbd.ErrExists) }

// cephVersions are those of the libraries in use.
func cephVersions() (librbd, librados string) { return rbd.Versions() }
