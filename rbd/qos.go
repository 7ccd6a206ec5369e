package rbd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/semaphore"
)

// An image, its pool or the client's configuration can limit what librbd reads
// and writes (rbd_qos_*): each open image has a budget of its own, and what is
// beyond it waits in a queue. Whoever has much in flight there waits for all of
// it at once, and it looks as if the cluster did not answer. So no more is in
// flight than the limit lets through in a second.

// qosLimits are the settings, with what they count.
var qosLimits = []struct {
	key           string
	bytes         bool // a second; else operations
	reads, writes bool
}{
	{"rbd_qos_bps_limit", true, true, true},
	{"rbd_qos_read_bps_limit", true, true, false},
	{"rbd_qos_write_bps_limit", true, false, true},
	{"rbd_qos_iops_limit", false, true, true},
	{"rbd_qos_read_iops_limit", false, true, false},
	{"rbd_qos_write_iops_limit", false, false, true},
}

const (
	// qosExclude is the setting of newer releases for what is not limited.
	qosExclude = "rbd_qos_exclude_ops"

	// limitless is a burst that no image uses up: tokens of that many are there
	// from the beginning.
	limitless = "36028797018963968"

	configPrefix = "conf_" // of metadata keys that set an option

	// worthSaying is how long something waits for the limit before the user is told.
	worthSaying = time.Second
)

// liftQoS keeps QoS from limiting what this connection opens: by the setting for
// it, or where librbd has none, by bursts without an end. Both are this client's
// alone: an image's metadata goes before them, see throttle.
func (c *Conn) liftQoS() error {
	err := c.rados.SetConfigOption(qosExclude, "read,write,discard,write_same,compare_and_write")
	if errnoOf(err) != syscall.ENOENT {
		return c.named(err, "set the Ceph option %s", qosExclude)
	}
	for _, l := range qosLimits {
		burst := strings.TrimSuffix(l.key, "limit") + "burst"
		if err := c.rados.SetConfigOption(burst, limitless); err != nil {
			return c.failed(err, "--ignore-qos: this librbd has neither %s nor %s", qosExclude, burst)
		}
	}
	return nil
}

// throttle lets through what QoS lets through. nil lets all through.
type throttle struct {
	by        string // which limits, in words
	most      int64  // bytes of one operation
	bytes     *semaphore.Weighted
	operation *semaphore.Weighted

	say  func(format string, args ...any) // may be nil
	once sync.Once
}

// setting finds out what an option is for the image, and who says so: the image,
// the pool or this client.
func (im *image) setting(pool *rados.IOContext, own map[string]string, key string) (value, whose string) {
	if v, ok := own[configPrefix+key]; ok {
		return v, "the image's"
	}
	if v, err := rbd.GetPoolMetadata(pool, configPrefix+key); err == nil {
		return v, "the pool's"
	}
	v, _ := im.conn.rados.GetConfigOption(key) // one that it does not know is not set
	return v, "this client's"
}

// throttle finds the limits of what is read from the image, or written to it; own
// is its metadata.
func (im *image) throttle(ctx context.Context, writes bool, own map[string]string, say func(string, ...any)) (*throttle, error) {
	return on(ctx, im, "ask for the QoS", func(*rbd.Image) (*throttle, error) {
		pool, err := im.conn.rados.OpenIOContext(im.spec.Pool)
		if err != nil {
			return nil, err
		}
		defer pool.Destroy()
		return im.limits(pool, own, writes, say)
	})
}

func (im *image) limits(pool *rados.IOContext, own map[string]string, writes bool, say func(string, ...any)) (*throttle, error) {
	t := &throttle{say: say}
	var by []string
	var perSecond, operations int64
	for _, l := range qosLimits {
		if writes && !l.writes || !writes && !l.reads {
			continue
		}
		v, whose := im.setting(pool, own, l.key)
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n <= 0 {
			continue
		}
		if im.conn.ignoreQoS {
			if err := im.lifted(pool, own, l.key, n); err != nil {
				return nil, err
			}
			continue
		}
		by = append(by, fmt.Sprintf("%s %s of %d", whose, l.key, n))
		if least := &operations; l.bytes {
			least = &perSecond
			*least = smaller(*least, n)
		} else {
			*least = smaller(*least, n)
		}
	}
	if len(by) == 0 {
		return nil, nil
	}
	t.by = strings.Join(by, " and ")
	if perSecond > 0 {
		const sector = 4096
		t.most = max(perSecond/sector*sector, sector)
		t.bytes = semaphore.NewWeighted(t.most)
	}
	if operations > 0 {
		t.operation = semaphore.NewWeighted(operations)
	}
	return t, nil
}

// smaller is the smaller of two limits, of which 0 is none.
func smaller(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// lifted checks that a limit does not apply although it is set.
func (im *image) lifted(pool *rados.IOContext, own map[string]string, limit string, n int64) error {
	refused := func(why string) error {
		return fmt.Errorf("--ignore-qos cannot lift %s of %d of %s: %s", limit, n, im.spec.at(""), why)
	}
	if v, err := im.conn.rados.GetConfigOption(qosExclude); err == nil && v != "" {
		if _, whose := im.setting(pool, own, qosExclude); whose != "this client's" {
			return refused(whose + " own " + qosExclude + " goes before this client's")
		}
		return nil
	}
	burst := strings.TrimSuffix(limit, "limit") + "burst"
	if v, whose := im.setting(pool, own, burst); v != limitless {
		return refused(fmt.Sprintf("this librbd has no %s, and %s %s of %s goes before this client's", qosExclude, whose, burst, v))
	}
	return nil
}

// piece is how much of length bytes one operation may take.
func (t *throttle) piece(length int64) int64 {
	if t == nil || t.most == 0 {
		return length
	}
	return min(length, t.most)
}

// do waits until an operation of a number of bytes fits in, and does it.
func (t *throttle) do(ctx context.Context, bytes int64, f func() error) error {
	if t == nil {
		return f()
	}
	started := time.Now()
	for _, part := range []struct {
		room *semaphore.Weighted
		n    int64
	}{{t.operation, 1}, {t.bytes, bytes}} {
		if part.room == nil {
			continue
		}
		if err := part.room.Acquire(ctx, part.n); err != nil {
			return context.Cause(ctx)
		}
		defer part.room.Release(part.n)
	}
	if t.say != nil && time.Since(started) > worthSaying {
		t.once.Do(func() { t.say("throttled by %s: --ignore-qos lifts that for backy alone", t.by) })
	}
	return f()
}
