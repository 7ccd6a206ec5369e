package rbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// DefaultTimeout is Config.Timeout where that is 0.
const DefaultTimeout = 2 * time.Minute

// Config tells how to reach a cluster. The zero value does as Ceph's own tools
// do: CEPH_CONF or the default ceph.conf, CEPH_ARGS, client.admin.
type Config struct {
	Conf    string // path of ceph.conf
	Cluster string // the cluster's name, for the default ceph.conf; "": ceph
	ID      string // the user without its type: backup for client.backup
	Name    string // the user with its type: client.backup; not with ID
	Keyring string // path of the user's keyring

	QoS QoS

	// Timeout is how long the cluster may make no progress before that is an
	// error; 0: DefaultTimeout.
	Timeout time.Duration
}

// Conn is a connection to a cluster, for many goroutines at a time.
type Conn struct {
	rados   *rados.Conn
	calls   calls
	fsid    string
	user    string
	timeout time.Duration
	qos     QoS
	lifted  bool        // QoS does not limit what is opened
	leaked  atomic.Bool // an image could not be closed, so the connection must not be
}

// Connect connects to a cluster. Configuration is read in the order of Ceph's
// tools, later wins: the conf file, CEPH_ARGS, the fields of Config.
//
// Errors: a ConnectError where there is no connection, and in it ErrTimeout where
// no monitor answers within the timeout, ErrPermission where the user or its key
// is refused.
func Connect(ctx context.Context, config Config) (*Conn, error) {
	config, err := config.withArgs(os.Getenv("CEPH_ARGS"))
	if err != nil {
		return nil, err
	}
	r, err := rados.NewConnWithClusterAndUser(config.Cluster, config.Name)
	if err != nil {
		return nil, fmt.Errorf("user %q: librados takes no such name", config.Name)
	}
	c := &Conn{
		rados: r, user: config.Name, timeout: config.Timeout, qos: config.QoS,
		calls: calls{limit: config.Timeout + config.Timeout/4 + time.Second},
	}
	if err := c.configure(config); err != nil {
		return nil, err
	}
	err = do(ctx, &c.calls, "connect to the cluster", r.Connect)
	if err != nil {
		return nil, c.connectError(ctx, err, config)
	}
	if err := c.liftQoS(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.fsid, err = r.GetFSID()
	if err != nil {
		return nil, errors.Join(c.failed(err, "ask for the cluster's id"), c.Close())
	}
	return c, nil
}

// withArgs fills in what librados cannot take from CEPH_ARGS because it must
// know it earlier, and the defaults.
func (c Config) withArgs(args string) (Config, error) {
	if c.ID != "" && c.Name != "" {
		return c, fmt.Errorf("both the user's id %q and its name %q are given: give one", c.ID, c.Name)
	}
	if c.ID != "" {
		c.Name = "client." + c.ID
	}
	early, err := parseEarlyArgs(args)
	if err != nil {
		return c, err
	}
	for _, f := range []struct {
		field           *string
		early, fallback string
	}{
		{&c.Name, early.Name, "client.admin"},
		{&c.Cluster, early.Cluster, "ceph"},
		{&c.Conf, early.Conf, ""},
	} {
		if *f.field == "" {
			*f.field = f.early
		}
		if *f.field == "" {
			*f.field = f.fallback
		}
	}
	if kind, id, _ := strings.Cut(c.Name, "."); kind != "client" || id == "" {
		return c, fmt.Errorf("user %q: want client.ID, such as client.admin", c.Name)
	}
	if c.Timeout < 0 {
		return c, fmt.Errorf("timeout %s: less than nothing", c.Timeout)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return c, nil
}

// parseEarlyArgs picks from CEPH_ARGS the options that decide which user and
// which conf file it is about, as ceph_argparse_early_args of Ceph's
// src/common/ceph_argparse.cc does. librados leaves them out.
func parseEarlyArgs(args string) (Config, error) {
	var c Config
	words := strings.Fields(args)
	for i := 0; i < len(words); i++ {
		option, value, glued := strings.Cut(words[i], "=")
		var field *string
		prefix := ""
		switch option {
		case "--id", "--user":
			field, prefix = &c.Name, "client."
		case "-n", "--name":
			field = &c.Name
		case "-c", "--conf":
			field = &c.Conf
		case "--cluster":
			field = &c.Cluster
		default:
			continue
		}
		if !glued {
			if i++; i == len(words) {
				return c, fmt.Errorf("CEPH_ARGS: %s has no value", option)
			}
			value = words[i]
		}
		*field = prefix + value
	}
	return c, nil
}

// configure reads the configuration.
func (c *Conn) configure(config Config) error {
	if config.Conf != "" {
		if err := c.rados.ReadConfigFile(config.Conf); err != nil {
			return c.failed(err, "read the Ceph configuration %s", config.Conf)
		}
	} else {
		err := c.rados.ReadDefaultConfigFile()
		if err != nil && errnoOf(err) != syscall.ENOENT {
			return c.failed(err, "read the default Ceph configuration of cluster %q", config.Cluster)
		}
		if path := os.Getenv("CEPH_CONF"); err != nil && path != "" {
			return c.failed(err, "read the Ceph configuration %s (CEPH_CONF)", path)
		}
	}
	if err := c.rados.ParseDefaultConfigEnv(); err != nil {
		return c.failed(err, "read CEPH_ARGS") // which may hold a key
	}
	if err := c.setOptions(config); err != nil {
		return err
	}
	return c.mute()
}

func (c *Conn) setOptions(config Config) error {
	// The options take whole seconds.
	seconds := strconv.FormatInt(int64((config.Timeout+time.Second-1)/time.Second), 10)
	options := [][2]string{
		// Without these nothing ever times out.
		{"rados_osd_op_timeout", seconds},
		{"rados_mon_op_timeout", seconds},
		{"client_mount_timeout", seconds},
		// Snapshots are read once, and what a restore writes must not sit in a cache.
		{"rbd_cache", "false"},
		// Nor in one on this host's disk, and no parent is read from one.
		{"rbd_plugins", ""},
		{"rbd_persistent_cache_mode", "disabled"},
		{"rbd_parent_cache_enabled", "false"},
		// Zeros are written as holes, and an incomplete image is removed, not kept.
		{"rbd_discard_on_zeroed_write_same", "true"},
		{"rbd_move_to_trash_on_remove", "false"},
	}
	if config.Keyring != "" {
		options = append(options, [2]string{"keyring", config.Keyring})
	}
	for _, o := range options {
		if err := c.rados.SetConfigOption(o[0], o[1]); err != nil {
			return c.failed(err, "set the Ceph option %s to %s", o[0], o[1])
		}
	}
	return nil
}

// FSID is the id of the cluster.
func (c *Conn) FSID() string { return c.fsid }

// abandoned are the connections that are left to the end of the process. go-ceph
// shuts down those that nothing refers to, under the images that are open there.
var abandoned struct {
	sync.Mutex
	conns []*rados.Conn
}

// Close ends the connection. Sources, views and targets made from it must be
// done with. Where calls hang, or an image could not be closed, the connection
// is left to the end of the process.
func (c *Conn) Close() error {
	if c.leaked.Load() || !c.calls.settle(grace) {
		abandoned.Lock()
		defer abandoned.Unlock()
		abandoned.conns = append(abandoned.conns, c.rados)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := do(ctx, &c.calls, "close the connection to the cluster", func() error {
		c.rados.Shutdown()
		return nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
