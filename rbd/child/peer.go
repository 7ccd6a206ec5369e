package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrEnded tells that the other end is gone, or says what nobody understands.
var ErrEnded = errors.New("the other process has ended")

// Verbs are what an end can be asked to do. Handle makes their functions.
type Verbs map[string]func(ctx context.Context, p *Peer, body []byte) ([]byte, error)

// Handle adds a verb that takes an A and gives an R. ctx ends when the caller
// gives up, or is gone.
func Handle[A, R any](v Verbs, verb string, f func(ctx context.Context, p *Peer, args A) (R, error)) {
	v[verb] = func(ctx context.Context, p *Peer, body []byte) ([]byte, error) {
		var args A
		if err := unpack(body, &args); err != nil {
			return nil, fmt.Errorf("%s: %w", verb, err)
		}
		result, err := f(ctx, p, args)
		if err != nil {
			return nil, err
		}
		return pack(result)
	}
}

// Faults brings errors across. What Open makes of what Seal made must match the
// same errors and have the same words.
type Faults interface {
	Seal(err error) []byte
	Open(p []byte) error
}

// Peer is one end of the socket. It is safe for concurrent use.
type Peer struct {
	conn   io.ReadWriteCloser
	faults Faults

	closing sync.Once

	sending sync.Mutex
	unsent  []byte // frames that whoever is writing takes along
	spare   []byte // the buffer of those that were sent
	writing bool

	mu      sync.Mutex
	verbs   Verbs
	next    uint64
	waiting map[uint64]chan frame // for the answers to our calls
	serving map[uint64]context.CancelFunc
	heard   time.Time // when the other end last said something, or was left to us
	ended   chan struct{}
}

// NewPeer makes an end of a connection. Nothing is read before Run.
func NewPeer(conn io.ReadWriteCloser, faults Faults) *Peer {
	return &Peer{
		conn: conn, faults: faults, verbs: Verbs{}, ended: make(chan struct{}), heard: time.Now(),
		waiting: map[uint64]chan frame{}, serving: map[uint64]context.CancelFunc{},
	}
}

// Serve sets the verbs that the other end may call from now on.
func (p *Peer) Serve(v Verbs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verbs = v
}

// Run reads what the other end says until it is gone, and then ends what is being
// served and waited for. It returns nil where the other end has closed the
// connection between two frames.
func (p *Peer) Run() error {
	defer p.end()
	conn := bufio.NewReaderSize(p.conn, 64<<10)
	for {
		f, err := readFrame(conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.take(f)
	}
}

func (p *Peer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.ended)
	for _, cancel := range p.serving {
		cancel()
	}
}

func (p *Peer) take(f frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
	switch f.kind {
	case isCall:
		ctx, cancel := context.WithCancel(context.Background())
		p.serving[f.id] = cancel
		go p.serve(ctx, f, p.verbs[f.verb])
	case isCancel:
		if cancel, ok := p.serving[f.id]; ok {
			cancel()
		}
	case isResult, isFault:
		if answer, ok := p.waiting[f.id]; ok {
			delete(p.waiting, f.id)
			answer <- f // there is room
		}
	}
}

func (p *Peer) serve(ctx context.Context, f frame, do func(context.Context, *Peer, []byte) ([]byte, error)) {
	answer := frame{kind: isResult, id: f.id}
	var err error
	if do == nil {
		err = fmt.Errorf("%q: no such verb", f.verb)
	} else {
		answer.body, err = do(ctx, p, f.body)
	}
	if err != nil {
		answer.kind, answer.body = isFault, p.faults.Seal(err)
	}
	p.mu.Lock()
	p.serving[f.id]()
	delete(p.serving, f.id)
	p.heard = time.Now() // while we served, the other end waited for us
	p.mu.Unlock()
	_ = p.write(answer) // whom that does not reach is gone
}

// write sends a frame, or leaves it to the one that is sending: frames that come
// together go together, and wake the other end once. Of what could not be sent
// Run finds out.
func (p *Peer) write(f frame) (err error) {
	p.sending.Lock()
	defer p.sending.Unlock()
	if p.unsent, err = appendFrame(p.unsent, f); err != nil || p.writing {
		return err
	}
	p.writing = true
	for len(p.unsent) > 0 && err == nil {
		frames := p.unsent
		p.unsent = p.spare[:0]
		p.sending.Unlock()
		_, err = p.conn.Write(frames)
		p.sending.Lock()
		if p.spare = nil; cap(frames) <= maxSpare {
			p.spare = frames
		}
	}
	p.writing = false
	return err
}

// maxSpare bounds the buffer that is kept, in bytes.
const maxSpare = 256 << 10

// Alive tells the other end that a call it waits for makes progress.
func (p *Peer) Alive() { _ = p.write(frame{kind: isAlive}) }

// Call has the other end do a verb and fills result, a pointer. When ctx ends, the
// other end is told, and its answer is waited for all the same: it knows best
// what is left of the call. Error: what the verb gave, or ErrEnded.
func (p *Peer) Call(ctx context.Context, verb string, args, result any) error {
	body, err := pack(args)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	answer := make(chan frame, 1)
	p.mu.Lock()
	if len(p.waiting) == 0 {
		p.heard = time.Now() // it had nothing to say
	}
	p.next++
	id := p.next
	p.waiting[id] = answer
	p.mu.Unlock()
	if err := p.write(frame{kind: isCall, id: id, verb: verb, body: body}); err != nil {
		p.mu.Lock()
		delete(p.waiting, id)
		p.mu.Unlock()
		return fmt.Errorf("%s: %w", verb, ErrEnded)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.write(frame{kind: isCancel, id: id}) })
	defer stop()
	select {
	case f := <-answer:
		return p.open(verb, f, result)
	case <-p.ended:
		select {
		case f := <-answer: // the last that it said
			return p.open(verb, f, result)
		default:
			return fmt.Errorf("%s: %w", verb, ErrEnded)
		}
	}
}

func (p *Peer) open(verb string, f frame, result any) error {
	if f.kind == isFault {
		return p.faults.Open(f.body)
	}
	if err := unpack(f.body, result); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// silent is for how long the other end has said nothing though it was its turn:
// a call that it made us, and that we have not answered, keeps one of ours
// waiting.
func (p *Peer) silent(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) <= len(p.serving) {
		p.heard = now
	}
	return now.Sub(p.heard)
}

// Close ends the connection, once.
func (p *Peer) Close() (err error) {
	p.closing.Do(func() { err = p.conn.Close() })
	return err
}
