package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/rbd/child"
	"backy/store"
)

// moved counts what tells that calls into librbd make progress.
var moved atomic.Int64

// aliveEvery is how often the parent is told at most.
const aliveEvery = 200 * time.Millisecond

// ServeChild does for a parent process what its Cluster asks for, with calls into
// librbd that may crash or hang, until the parent is done or gone. It returns the
// exit code.
func ServeChild() int {
	peer, memory, err := child.Attach(faults{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "backy:", err)
		return 2
	}
	childSignals()
	go func() {
		for seen := int64(0); ; time.Sleep(aliveEvery) {
			if n := moved.Load(); n != seen {
				seen = n
				peer.Alive()
			}
		}
	}()
	s := &served{memory: memory}
	peer.Serve(s.verbs())
	if err := peer.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "backy:", err)
		return 1
	}
	return 0 // whatever hangs: the parent is done with us
}

// served is a child's state: a connection, and at most one session.
type served struct {
	memory *child.Memory
	conn   *Conn

	mu      sync.Mutex
	session *session
}

// session is what a child works on: an image that is read or written.
type session struct {
	ctx  context.Context // ends the reads and writes
	stop context.CancelFunc

	lists [2]hints.Seq // by which

	source *Source
	state  *engine.State
	close  func() error // of a view
	target *Target

	mu      sync.Mutex
	reader  io.ReaderAt
	streams map[uint64]*stream
	last    uint64
}

func (s *served) verbs() child.Verbs {
	v := child.Verbs{}
	child.Handle(v, verbConnect, s.connect)
	child.Handle(v, verbIdle, s.idle)
	child.Handle(v, verbQuit, func(context.Context, *child.Peer, child.Nothing) (child.Nothing, error) {
		return child.Nothing{}, s.conn.Close()
	})
	child.Handle(v, verbStop, func(context.Context, *child.Peer, child.Nothing) (n child.Nothing, err error) {
		at, err := s.current()
		if err == nil {
			at.stop()
		}
		return n, err
	})
	s.clusterVerbs(v)
	s.sourceVerbs(v)
	s.readVerbs(v)
	s.targetVerbs(v)
	moreVerbs(s, v)
	return v
}

// moreVerbs adds those of tests.
var moreVerbs = func(*served, child.Verbs) {}

func (s *served) connect(ctx context.Context, _ *child.Peer, c Config) (fsid string, err error) {
	if s.conn, err = Connect(ctx, c); err != nil {
		return "", err
	}
	return s.conn.FSID(), nil
}

// begin makes a session. Until done is called, the end of ctx ends the session's
// context.
func (s *served) begin(ctx context.Context) (at *session, done func()) {
	at = &session{streams: map[uint64]*stream{}}
	at.ctx, at.stop = context.WithCancel(context.Background())
	s.mu.Lock()
	s.session = at
	s.mu.Unlock()
	unlink := context.AfterFunc(ctx, at.stop)
	return at, func() { unlink() }
}

func (s *served) current() (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil, errors.New("the child process has no image open")
	}
	return s.session, nil
}

// idle ends the session. It fails where calls were left behind: then this process
// is not fit for another image.
func (s *served) idle(context.Context, *child.Peer, child.Nothing) (n child.Nothing, err error) {
	s.mu.Lock()
	if s.session != nil {
		s.session.stop()
	}
	s.session = nil
	s.mu.Unlock()
	if s.conn.leaked.Load() || !s.conn.calls.settle(time.Second) {
		return n, errors.New("calls into librbd were left behind")
	}
	return n, nil
}

// around is the parent's Snapping: it does there what is to be done around the
// snapshot, and has us take it meanwhile.
func around(p *child.Peer, wanted bool, v child.Verbs) Snapping {
	if !wanted {
		return nil
	}
	return func(ctx context.Context, spec Spec, take func(context.Context) error) error {
		var called error
		child.Handle(v, verbTake, func(ctx context.Context, _ *child.Peer, _ child.Nothing) (child.Nothing, error) {
			called = take(ctx)
			return child.Nothing{}, called
		})
		p.Serve(v)
		err := p.Call(ctx, verbSnap, spec, &child.Nothing{})
		if err != nil && called != nil && err.Error() == called.Error() {
			return called // and not what is left of it after two crossings
		}
		return err
	}
}

func (s *served) clusterVerbs(v child.Verbs) {
	child.Handle(v, verbList, func(ctx context.Context, _ *child.Peer, p PoolSpec) ([]Spec, error) { return s.conn.List(ctx, p) })
	child.Handle(v, verbHasNamespace, func(ctx context.Context, _ *child.Peer, in Spec) (bool, error) {
		return s.conn.HasNamespace(ctx, in.Pool, in.Namespace)
	})
	child.Handle(v, verbHasImage, func(ctx context.Context, _ *child.Peer, spec Spec) (bool, error) { return s.conn.HasImage(ctx, spec) })
	child.Handle(v, verbLook, func(ctx context.Context, _ *child.Peer, a lookArgs) (Info, error) {
		info, err := s.conn.Look(ctx, a.Spec, a.Prefix)
		return info, s.conn.halfRemoved(ctx, a.Spec, err)
	})
	child.Handle(v, verbInspect, func(ctx context.Context, _ *child.Peer, a lookArgs) (i inspection, err error) {
		info, own, err := s.conn.Inspect(ctx, a.Spec, a.Prefix)
		i.Info = info
		for _, o := range own {
			i.Own = append(i.Own, sealOwn(o))
		}
		return i, err
	})
	child.Handle(v, verbSpace, func(ctx context.Context, _ *child.Peer, o ownSnapshot) (r space, err error) {
		r.Bytes, r.OK, err = s.conn.Space(ctx, o.open())
		return r, err
	})
	child.Handle(v, verbRemoveStray, func(ctx context.Context, _ *child.Peer, o ownSnapshot) (n child.Nothing, err error) {
		return n, s.conn.RemoveStray(ctx, o.open())
	})
	child.Handle(v, verbCheckStray, func(ctx context.Context, _ *child.Peer, o ownSnapshot) (n child.Nothing, err error) {
		return n, s.conn.CheckStray(ctx, o.open())
	})
	child.Handle(v, verbIdentify, func(ctx context.Context, _ *child.Peer, spec Spec) (store.ImageID, error) {
		return s.conn.identify(ctx, spec, "")
	})
	child.Handle(v, verbAdmit, func(ctx context.Context, _ *child.Peer, a admitArgs) (note string, err error) {
		return s.conn.admit(ctx, claimant{a.Spec, a.ID, a.Name, a.Adopt}, a.Newest.V)
	})
	child.Handle(v, verbPrepare, func(ctx context.Context, p *child.Peer, a prepareArgs) (n child.Nothing, err error) {
		return n, s.conn.Prepare(ctx, a.Spec, a.Repository, a.Name, a.MaxAge, around(p, a.Around, s.verbs()))
	})
}

// warner tells the parent's user.
func warner(p *child.Peer) func(format string, args ...any) {
	return func(format string, args ...any) {
		_ = p.Call(context.Background(), verbWarn, engine.Sentence(format, args...), &child.Nothing{})
	}
}

// over asks the parent whether it knows a run to be over, once for each. If it is
// gone, so are we.
func over(p *child.Peer) func(store.RunID) bool {
	known := map[store.RunID]bool{}
	return func(run store.RunID) bool {
		if is, ok := known[run]; ok {
			return is
		}
		var is bool
		if p.Call(context.Background(), verbOver, run, &is) == nil {
			known[run] = is
		}
		return is
	}
}

// judgeBy asks the parent what the repository knows of snapshots.
func judgeBy(p *child.Peer) func(context.Context, []OwnSnapshot) error {
	return func(ctx context.Context, list []OwnSnapshot) error {
		var judged []ownSnapshot
		if err := p.Call(ctx, verbJudge, sealAll(list), &judged); err != nil {
			return err
		}
		if len(judged) != len(list) {
			return fmt.Errorf("%d of %d snapshots were judged", len(judged), len(list))
		}
		copy(list, openAll(judged))
		return nil
	}
}
