//go:build cgo

package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"backy/engine"
	"backy/engine/local"
	"backy/rbd"
	"backy/rbd/child"
)

// qos is what becomes of the limits of rbd_qos_*.
func (f *cephFlags) qos() rbd.QoS {
	switch {
	case f.ignoreQoS.yes:
		return rbd.IgnoreQoS
	case f.ignoreQoS.no:
		return rbd.KeepQoS
	}
	return rbd.ExceedQoS
}

// connection is to a cluster.
type connection struct{ *rbd.Cluster }

// connect connects to the cluster that the flags name, once, until the run's
// end.
func (p *program) connect(ctx context.Context) (*rbd.Cluster, error) {
	if p.connection.Cluster != nil {
		return p.connection.Cluster, nil
	}
	f := p.common.ceph
	conn, err := rbd.Open(ctx, rbd.Config{
		Conf: f.conf, Cluster: f.cluster, ID: f.id, Name: f.name, Keyring: f.keyring, Timeout: f.timeout, QoS: f.qos(),
	}, rbd.ClusterOptions{CrashDir: f.crashDir, Warn: p.talk.warn})
	var refused *rbd.ConnectError
	if errors.As(err, &refused) {
		return nil, withHint(err, strings.Join(refused.Hints, "\n"))
	}
	if err != nil {
		return nil, err
	}
	p.atEnd(conn.Close)
	p.connection.Cluster = conn
	p.talk.detail("connected to cluster %s", conn.FSID())
	return conn, nil
}

// unreported tells that librbd crashed, or hung, and that no report of it was asked
// for.
func (p *program) unreported() bool {
	return p.connection.Cluster != nil && p.connection.Crashed() && p.common.ceph.crashDir == ""
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
func (p *program) rbdSource(ctx context.Context, arg string, f backupFlags, look bool) (engine.Source, error) {
	spec, err := parseSpec(arg)
	if err != nil {
		return nil, err
	}
	o, err := p.sourceOptions(f)
	if err != nil {
		return nil, err
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
	return conn.Source(spec, o), nil
}

func (p *program) sourceOptions(f backupFlags) (o rbd.SourceOptions, err error) {
	if o.Diff, err = rbd.ParseDiff(f.diff.chosen); err != nil {
		return o, &usageError{err}
	}
	o.Adopt = f.adopt
	if f.freeze == "" {
		return o, nil
	}
	stderr := &relay{t: &p.talk}
	p.atEnd(stderr.Close)
	freeze := local.Freeze{Freeze: f.freeze, Thaw: f.thaw, Limit: time.Duration(f.freezeLimit), Stderr: stderr}
	o.Snapping = func(ctx context.Context, spec rbd.Spec, take func(context.Context) error) error {
		return freeze.Around(ctx, []string{
			"BACKY_POOL=" + spec.Pool, "BACKY_NAMESPACE=" + spec.Namespace, "BACKY_IMAGE=" + spec.Image, "BACKY_SPEC=" + spec.String(),
		}, take)
	}
	return o, nil
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

func (p *program) rbdTarget(ctx context.Context, arg string, f targetFlags) (engine.Target, error) {
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
	metadata := rbd.MetadataNew
	switch {
	case f.metadata:
		metadata = rbd.MetadataAlways
	case f.noMetadata:
		metadata = rbd.MetadataNever
	}
	return conn.Target(spec, rbd.TargetOptions{Force: f.force, Metadata: metadata, Warn: p.talk.warn}), nil
}

// childMain is what this process does where it is not a user's, but runs librbd for
// another backy.
func childMain(args []string) (code int, ok bool) {
	if len(args) != 1 || args[0] != child.Verb {
		return 0, false
	}
	return rbd.ServeChild(), true
}

// imageExists tells the error that -f gets over.
func imageExists(err error) bool { return errors.Is(err, rbd.ErrExists) }

// isOthersName tells the error that --adopt gets over.
func isOthersName(err error) bool { return errors.Is(err, rbd.ErrOthersName) }

// cephVersions are those of the libraries in use.
func cephVersions() (librbd, librados string) { return rbd.Versions() }
