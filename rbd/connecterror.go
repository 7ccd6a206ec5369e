package rbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// knowsAES256K is the first release of Ceph whose librados surely reads keys of
// type aes256k: of Ceph 19, 19.2.6 and later do.
const knowsAES256K = 20

// ConnectError tells why there is no connection to the cluster.
type ConnectError struct {
	Reason string   // one clause
	Hints  []string // what to do about it: a command, or words
	what   string
	err    error // ErrTimeout, ErrPermission or the C library's number
}

func (e *ConnectError) Error() string { return e.what + ": " + e.Reason }
func (e *ConnectError) Unwrap() error { return e.err }

// installed is the release of the librbd that is in use, and so of the librados
// that it needs: only the one tells of itself.
func installed() int {
	_, release, _ := rbd.Version()
	return release
}

// option is the value of one of Ceph's options, "" where it is not set.
func (c *Conn) option(name string) string {
	value, _ := c.rados.GetConfigOption(name)
	return value
}

// mute keeps a key that librados cannot read out of its log: it would print
// it, on stderr where the configuration asks for that.
func (c *Conn) mute() error {
	if findKeys(c.user, c.option).worst(installed()) == nil {
		return nil
	}
	for _, option := range []string{"log_to_stderr", "err_to_stderr", "log_to_syslog", "err_to_syslog"} {
		if err := c.rados.SetConfigOption(option, "false"); err != nil {
			return c.failed(err, "set the Ceph option %s to false", option)
		}
	}
	if err := c.rados.SetConfigOption("log_file", ""); err != nil {
		return c.failed(err, "set the Ceph option log_file to nothing")
	}
	return nil
}

// connectError puts into words why there is no connection: librados gives a
// number alone, and few of them.
func (c *Conn) connectError(ctx context.Context, err error, config Config) error {
	n := errnoOf(err)
	if n == 0 && !errors.Is(err, ErrTimeout) {
		return err
	}
	hosts, conf := c.option("mon_host"), config.confPath()
	e := &ConnectError{what: fmt.Sprintf("connect to the cluster at %s as %s", hosts, c.user), err: n}
	if n == 0 {
		e.err = err
	}
	if hosts == "" {
		e.what = "connect to the cluster as " + c.user
	}
	found := findKeys(c.user, c.option)
	switch {
	case n == syscall.EPERM || n == syscall.EACCES:
		e.err = ErrPermission
		if own := found.of(c.user); own != nil && own.kind != keyBroken || !c.badKey(e, found, config.Cluster) {
			c.refused(e, found)
		}
	case n == 0 || n == syscall.ETIMEDOUT:
		c.unanswered(ctx, e, hosts, conf)
	case hosts == "" && !namesMonitors(conf):
		unnamed(e, conf)
	case c.badKey(e, found, config.Cluster):
	default:
		if e.Reason = unresolved(ctx, parseMonHost(hosts)); e.Reason == "" {
			e.Reason = c.plain(n).Error()
		} else {
			e.Hints = []string{resolveHint(conf)}
		}
	}
	return e
}

func unnamed(e *ConnectError, conf string) {
	if conf == "" {
		e.Reason = "no monitor is named: there is no ceph.conf, and nothing else names one"
		e.Hints = []string{"give the cluster's configuration with --ceph-conf or CEPH_CONF"}
		return
	}
	e.Reason = fmt.Sprintf("no monitor is named: %s sets no mon host", conf)
	e.Hints = []string{"add the line 'mon host = ADDRESS' to the section [global] of " + conf + " (ceph config generate-minimal-conf prints it)"}
}

// resolveHint is what to do about a name that does not resolve.
func resolveHint(conf string) string {
	return "correct mon host in " + cmp.Or(conf, "the configuration") + ", or /etc/hosts, or the name server"
}

func (c *Conn) refused(e *ConnectError, found keys) {
	if methods := c.option("auth_client_required"); methods != "" && !strings.Contains(methods, "cephx") {
		e.Reason = fmt.Sprintf("%v: the configuration asks for authentication by %s, the cluster for another", ErrPermission, methods)
		e.Hints = []string{"auth client required = cephx   # in the section [global] of the configuration"}
		return
	}
	e.Reason = fmt.Sprintf("%v: the cluster does not know this user, or the key in %s is not the user's", ErrPermission, found.place)
	e.Hints = []string{fmt.Sprintf("ceph auth get %s   # as an administrator; compare the key", c.user)}
	if own := found.of(c.user); own != nil && own.kind == keyAES {
		e.Reason += ", or it is of type aes and the cluster allows aes256k only"
		e.Hints = append(e.Hints, "ceph mon dump   # auth_allowed_ciphers are the types that the cluster allows")
	}
}

func (c *Conn) unanswered(ctx context.Context, e *ConnectError, hosts, conf string) {
	list := parseMonHost(hosts)
	e.err = ErrTimeout
	e.Reason = fmt.Sprintf("%v within %s", ErrTimeout, c.timeout)
	e.Hints = []string{"ceph --connect-timeout 10 -s   # on a node of the cluster: do its monitors run, and have they a quorum?"}
	// The caller may have given up: a look is short.
	ctx = context.WithoutCancel(ctx)
	if why := unresolved(ctx, list); why != "" {
		e.Reason += ": " + why
		e.Hints = []string{resolveHint(conf)}
	} else if why := knock(ctx, list); why != "" {
		e.Reason += ": " + why
	}
}

// badKey tells what is wrong with the key, if something is.
func (c *Conn) badKey(e *ConnectError, found keys, cluster string) bool {
	get := fmt.Sprintf("ceph auth get %s -o /etc/ceph/%s.%s.keyring   # as an administrator", c.user, cluster, c.user)
	switch bad := found.worst(installed()); {
	case !found.found:
		e.Reason = fmt.Sprintf("there is no keyring with the key of %s: %s does not exist", c.user, strings.ReplaceAll(found.place, ",", ", "))
		e.Hints = []string{get}
	case found.err != nil:
		e.Reason = fmt.Sprintf("the key of %s cannot be read: %v", c.user, found.err)
		e.Hints = []string{"make the file readable for this user, or name another with --keyring"}
	case bad != nil && bad.kind == keyBroken:
		e.Reason = fmt.Sprintf("the key of %s in %s is damaged", bad.user, found.place)
		e.Hints = []string{get}
	case bad != nil:
		e.Reason = fmt.Sprintf("the key of %s in %s is of type aes256k, which the librados that is installed, of Ceph %d, cannot read", bad.user, found.place, installed())
		e.Hints = []string{
			"install librados2 and librbd1 of Ceph 20 (Debian forky has them), or use the container image, which brings them",
			fmt.Sprintf("ceph auth rotate %s --key_type aes   # on a cluster that allows that: see the README, \"Keys of type aes256k\"", bad.user),
		}
	case found.of(c.user) == nil:
		e.Reason = fmt.Sprintf("there is no key of %s in %s", c.user, found.place)
		e.Hints = []string{get}
	default:
		return false
	}
	return true
}

// confPath is the configuration file that librados read: the search path of
// Ceph's src/common/config.cc. "" is none.
func (c Config) confPath() string {
	for _, path := range []string{
		c.Conf, os.Getenv("CEPH_CONF"), "/etc/ceph/" + c.Cluster + ".conf",
		filepath.Join(os.Getenv("HOME"), ".ceph", c.Cluster+".conf"), c.Cluster + ".conf",
	} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

var monAddr = regexp.MustCompile(`(?m)^\s*mon[ _]addr\s*=\s*\S`)

// namesMonitors tells whether a configuration names monitors in sections of their own.
func namesMonitors(conf string) bool {
	text, err := os.ReadFile(conf)
	return err == nil && monAddr.Match(text)
}
