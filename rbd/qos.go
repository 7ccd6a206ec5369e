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

// QoS is what becomes of those limits.
type QoS int

const (
	// ExceedQoS lifts an image's and its pool's, which are made for its other
	// clients, for this connection where librbd can. Where this client's
	// configuration has limits, all are kept to.
	ExceedQoS QoS = iota
	// IgnoreQoS lifts all. One that cannot be lifted is an error.
	IgnoreQoS
	// KeepQoS keeps to all.
	KeepQoS
)

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

// liftQoS keeps QoS from limiting what this connection opens, if that is wanted.
func (c *Conn) liftQoS() error {
	switch c.qos {
	case KeepQoS:
		return nil
	case ExceedQoS:
		for _, l := range qosLimits {
			if v, err := c.rados.GetConfigOption(l.key); err == nil && limit(v) > 0 {
				return nil
			}
		}
	}
	err := c.excludeQoS()
	c.lifted = err == nil
	if c.qos == ExceedQoS {
		return nil
	}
	return err
}

// excludeQoS makes QoS limit nothing: by the setting for it, or where librbd has
// none, by bursts without an end. Both are this client's alone: an image's
// metadata goes before them, see throttle.
func (c *Conn) excludeQoS() error {
	err := c.rados.SetConfigOption(qosExclude, "read,write,discard,write_same,compare_and_write")
	if errnoOf(err) != syscall.ENOENT {
		return c.named(err, "set the Ceph option %s", qosExclude)
	}
	for _, l := range qosLimits {
		burst := strings.TrimSuffix(l.key, "limit") + "burst"
		if err := c.rados.SetConfigOption(burst, limitless); err != nil {
			return c.failed(err, "lift QoS: this librbd has neither %s nor %s", qosExclude, burst)
		}
	}
	return nil
}

// limit is a setting's value, 0 where it limits nothing.
func limit(value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// throttle lets through what QoS lets through. nil lets all through.
type throttle struct {
	by, why               string // which limits, and why they apply, in words
	most                  int64  // bytes of one operation
	perSecond, operations int64  // 0: any number
	bytes                 *semaphore.Weighted
	operation             *semaphore.Weighted

	say  func(format string, args ...any) // may be nil
	felt rate
}

// settings are what says how an image's QoS is: its metadata, its pool's, and
// this client's configuration.
type settings struct {
	image, pool map[string]string
	client      *rados.Conn
}

// get finds out what an option is for the image, and who says so.
func (s settings) get(key string) (value, whose string) {
	if v, ok := s.image[configPrefix+key]; ok {
		return v, "the image's"
	}
	if v, ok := s.pool[configPrefix+key]; ok {
		return v, "the pool's"
	}
	v, _ := s.client.GetConfigOption(key) // one that it does not know is not set
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
		ofPool, err := poolQoS(pool)
		if err != nil {
			return nil, im.conn.failed(err, "ask for the QoS of the pool %s", im.spec.Pool)
		}
		return im.limits(settings{own, ofPool, im.conn.rados}, writes, say)
	})
}

func (im *image) limits(set settings, writes bool, say func(string, ...any)) (*throttle, error) {
	t := &throttle{say: say}
	var by []string
	var perSecond, operations int64
	for _, l := range qosLimits {
		if writes && !l.writes || !writes && !l.reads {
			continue
		}
		v, whose := set.get(l.key)
		n := limit(v)
		if n == 0 {
			continue
		}
		stays := im.stays(set, l.key)
		if stays == "" {
			continue
		}
		if im.conn.qos == IgnoreQoS {
			return nil, fmt.Errorf("--ignore-qos cannot lift %s of %d of %s: %s", l.key, n, im.spec.at(""), stays)
		}
		by = append(by, fmt.Sprintf("%s %s of %d", whose, l.key, n))
		t.why = stays
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
	t.perSecond, t.operations = perSecond, operations
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

// stays is why a limit applies to the image, "" if it does not.
func (im *image) stays(set settings, key string) string {
	switch {
	case im.conn.qos == KeepQoS:
		return "--ignore-qos=false keeps to it"
	case !im.conn.lifted:
		return "--ignore-qos lifts what this client's configuration and the image have"
	}
	if v, err := im.conn.rados.GetConfigOption(qosExclude); err == nil && v != "" {
		if _, whose := set.get(qosExclude); whose != "this client's" {
			return whose + " own " + qosExclude + " goes before this client's"
		}
		return ""
	}
	burst := strings.TrimSuffix(key, "limit") + "burst"
	if v, whose := set.get(burst); v != limitless {
		return fmt.Sprintf("this librbd has no %s, and %s %s of %s goes before this client's", qosExclude, whose, burst, v)
	}
	return ""
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
	err := f()
	if err == nil && t.say != nil && t.felt.add(t, started, bytes) {
		t.say("throttled by %s: %s", t.by, t.why)
	}
	return err
}

// rate is what got through so far.
type rate struct {
	sync.Mutex
	since             time.Time
	bytes, operations int64
	said              bool
}

// add counts an operation and tells, once, that the limit is what makes it take
// as long as it does: for a while, more than half of what the limit lets through
// came through, so that the cluster is faster than that.
func (r *rate) add(t *throttle, started time.Time, bytes int64) bool {
	r.Lock()
	defer r.Unlock()
	if r.since.IsZero() {
		r.since = started
	}
	r.bytes += bytes
	r.operations++
	if r.said {
		return false
	}
	took := time.Since(r.since)
	near := func(n, perSecond int64) bool {
		return perSecond > 0 && float64(n) > took.Seconds()*float64(perSecond)/2
	}
	r.said = took > worthSaying && (near(r.bytes, t.perSecond) || near(r.operations, t.operations))
	return r.said
}
