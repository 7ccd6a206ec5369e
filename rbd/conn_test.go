package rbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/ceph/go-ceph/rados"

	"backy/rbd/clustertest"
)

// Who connects to what, from flags, then CEPH_ARGS, then defaults, as
// ceph -n, --id, --cluster and -c do it.
func TestConfigArgs(t *testing.T) {
	admin := Config{Name: "client.admin", Cluster: "ceph", Timeout: DefaultTimeout}
	with := func(f func(*Config)) Config {
		c := admin
		f(&c)
		return c
	}
	backup := with(func(c *Config) { c.Name = "client.backup" })
	for _, c := range []struct {
		config Config
		args   string
		want   Config
	}{
		{Config{}, "", admin},
		{Config{ID: "backup"}, "", with(func(c *Config) { c.ID, c.Name = "backup", "client.backup" })},
		{Config{Name: "client.backup"}, "", backup},
		{Config{}, "--id backup", backup},
		{Config{}, "--id=backup", backup},
		{Config{}, "--user backup", backup},
		{Config{}, "-n client.backup", backup},
		{Config{}, "--name=client.backup", backup},
		{Config{}, "--id other --name client.backup", backup},
		{Config{Name: "client.backup"}, "--id other", backup},
		{Config{}, "--cluster site-a", with(func(c *Config) { c.Cluster = "site-a" })},
		{Config{Cluster: "site-b"}, "--cluster site-a", with(func(c *Config) { c.Cluster = "site-b" })},
		{Config{}, " -m 127.0.0.1  -c /x/ceph.conf ", with(func(c *Config) { c.Conf = "/x/ceph.conf" })},
		{Config{Timeout: time.Second}, "--keyring /k", with(func(c *Config) { c.Timeout = time.Second })},
	} {
		got, err := c.config.withArgs(c.args)
		if err != nil || got != c.want {
			t.Errorf("%+v with CEPH_ARGS %q: %+v, %v, want %+v", c.config, c.args, got, err, c.want)
		}
	}
	for _, c := range []struct {
		config    Config
		args, why string
	}{
		{Config{ID: "a", Name: "client.b"}, "", "give one"},
		{Config{Name: "backup"}, "", "want client.ID"},
		{Config{Name: "osd.0"}, "", "want client.ID"},
		{Config{Name: "client."}, "", "want client.ID"},
		{Config{}, "--id", "has no value"},
		{Config{Timeout: -1}, "", "less than nothing"},
	} {
		_, err := c.config.withArgs(c.args)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%+v with CEPH_ARGS %q: %v, want %q in it", c.config, c.args, err, c.why)
		}
	}
}

func TestConnectHonoursCephArgs(t *testing.T) {
	l := newLab(t)
	id := l.cluster.Key(t)
	t.Setenv("CEPH_CONF", l.cluster.Conf())
	t.Setenv("CEPH_ARGS", "--id "+id+" --keyring "+l.cluster.Keyring(id))
	conn := l.connect(Config{})
	if conn.user != "client."+id {
		t.Errorf("connected as %s, want client.%s", conn.user, id)
	}
	if fsid := strings.TrimSpace(l.cluster.Run(t, "ceph", "fsid")); conn.FSID() != fsid {
		t.Errorf("connected to %s, want %s", conn.FSID(), fsid)
	}
	// A flag of ours counts more than CEPH_ARGS.
	if conn := l.connect(Config{ID: "admin", Keyring: l.cluster.Keyring("admin")}); conn.user != "client.admin" {
		t.Errorf("connected as %s, want client.admin", conn.user)
	}
}

// P11: without timeouts of ours nothing would ever time out.
func TestP11UnreachableMonitor(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, address := range map[string]string{"nobody listens": "127.0.0.1:1", "nobody answers": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := writeConf(t, "mon host = v2:"+address+"\nkey = AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n")
			_, err := Connect(t.Context(), Config{Conf: conf, Timeout: 2 * time.Second})
			if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), address) {
				t.Errorf("%v, want ErrTimeout with the address %s", err, address)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		conf := writeConf(t, "mon host = v2:127.0.0.1:1\nkey = AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, os.ErrDeadlineExceeded)
		defer cancel()
		if _, err := Connect(ctx, Config{Conf: conf}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want the context's cause", err)
		}
	})
}

func writeConf(t *testing.T, global string) string {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "ceph.conf")
	if err := os.WriteFile(conf, []byte("[global]\n"+global), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	cluster := clustertest.Get(t)
	wrong := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(wrong, []byte("[client.admin]\n\tkey = AQCQ1XVpAAAAABAAUJQmcTmBAhZEDvBTkdBmGw==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(t.TempDir(), "newer")
	if err := os.WriteFile(newer, []byte("[client.admin]\n\tkey = "+aes256kKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What this librados says to a key of the newer type, which is nobody's.
	newerIs, newerWhy := error(syscall.EIO), fmt.Sprintf("of type aes256k, which the librados that is installed, of Ceph %d, cannot read", installed())
	if installed() >= knowsAES256K {
		newerIs, newerWhy = ErrPermission, "client.admin"
	}
	for _, c := range []struct {
		name   string
		config Config
		is     error
		why    string
	}{
		{"no such conf file", Config{Conf: "/nowhere/ceph.conf"}, os.ErrNotExist, "/nowhere/ceph.conf"},
		{"the wrong key", Config{Conf: cluster.Conf(), Keyring: wrong}, ErrPermission, "client.admin"},
		{"a user whose key is not in the keyring", Config{Conf: cluster.Conf(), ID: "nobody", Keyring: cluster.Keyring("admin")}, nil, "client.nobody"},
		{"no keyring", Config{Conf: cluster.Conf(), Keyring: "/nowhere/keyring"}, nil, "/nowhere/keyring"},
		{"a key of a newer type", Config{Conf: cluster.Conf(), Keyring: newer}, newerIs, newerWhy},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Connect(t.Context(), c.config)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.why) {
				t.Fatalf("%v, want %v with %q in it", err, c.is, c.why)
			}
			var refused *ConnectError
			if errors.As(err, &refused) == (c.config.Conf != cluster.Conf()) || refused != nil && len(refused.Hints) == 0 {
				t.Errorf("%#v, want a ConnectError with hints", err)
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), aes256kKey) {
				t.Errorf("%q, want one sentence without the key", err)
			}
		})
	}
}

// P16: librbd says "RBD image not found" to all of these.
func TestP16WhatDoesNotExist(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	l.snap(spec, "snap")
	for _, c := range []struct {
		spec Spec
		is   error
	}{
		{Spec{Pool: "nowhere", Image: "image"}, ErrNoPool},
		{l.spec("nowhere/image"), ErrNoNamespace},
		{l.spec("nothing"), ErrNoImage},
		{l.spec("nothing@snap"), ErrNoImage},
		{l.spec("image@nothing"), ErrNoSnapshot},
	} {
		s := l.series("x")
		if _, err := s.try(t.Context(), c.spec, DiffAuto); !errors.Is(err, c.is) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("backup of %s: %v, want %v", c.spec, err, c.is)
		}
		if _, _, err := l.conn.View(t.Context(), c.spec); !errors.Is(err, c.is) && !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("view of %s: %v, want %v", c.spec, err, c.is)
		}
		if c.is == ErrNoPool || c.is == ErrNoNamespace {
			_, err := l.restorer.Target(c.spec, TargetOptions{}).Prepare(t.Context(), s.level(object))
			if !errors.Is(err, c.is) {
				t.Errorf("restore to %s: %v, want %v", c.spec, err, c.is)
			}
		}
	}
}

func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	l.write(spec, 0, 100)
	l.snap(spec, "snap")
	reader := l.cluster.Key(t, "mon", "profile rbd", "osd", "profile rbd-read-only")
	l.conn = l.connect(Config{Conf: l.cluster.Conf(), ID: reader})

	s := l.series("x")
	_, err := s.try(t.Context(), spec, DiffAuto)
	if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), reader) {
		t.Errorf("backup as a reader: %v, want ErrPermission for %s", err, reader)
	}
	s.backup(spec.at("snap"), DiffAuto) // which a reader can
	_, err = l.conn.Target(spec, TargetOptions{Force: true}).Prepare(t.Context(), s.level(object))
	if !errors.Is(err, ErrPermission) {
		t.Errorf("restore as a reader: %v, want ErrPermission", err)
	}
	stranger := l.cluster.Key(t, "mon", "profile rbd", "osd", "profile rbd pool=elsewhere")
	l.conn = l.connect(Config{Conf: l.cluster.Conf(), ID: stranger})
	if _, err = l.series("x").try(t.Context(), spec, DiffAuto); !errors.Is(err, ErrPermission) {
		t.Errorf("backup as a stranger: %v, want ErrPermission", err)
	}
}

// A connection that had to be left to the end of the process stays until then:
// go-ceph shuts down one that is collected.
func TestAbandonedConnectionStays(t *testing.T) {
	r, err := rados.NewConn()
	if err != nil {
		t.Fatal(err)
	}
	left := weak.Make(r)
	c := &Conn{rados: r}
	c.leaked.Store(true)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r, c = nil, nil
	for range 3 {
		runtime.GC()
	}
	if left.Value() == nil {
		t.Error("it was collected")
	}
}
