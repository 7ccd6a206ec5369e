package batch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/batch"
	"backy/store"
	"backy/store/mem"
)

const chunk = 16 << 10

// pool is one in memory, which several nodes may share.
type pool struct {
	mu     sync.Mutex
	disks  map[string]*disk
	claims map[string]*claim // by label
	log    []string          // what was done to images, in order

	reading, mostReading int
	working, mostWorking int
}

type disk struct {
	id    string // of the image; a new one where it was made again
	data  []byte
	gone  bool
	begin func() error // may be nil
	read  func(ctx context.Context) error
}

func newPool(labels ...string) *pool {
	p := &pool{disks: map[string]*disk{}, claims: map[string]*claim{}}
	for n, l := range labels {
		data := make([]byte, (n+1)*chunk)
		for i := range data {
			data[i] = byte(n + 1)
		}
		p.disks[l] = &disk{id: l, data: data}
	}
	return p
}

func (p *pool) images() (list []batch.Image) {
	for l, d := range p.disks {
		list = append(list, batch.Image{Label: l, Name: store.Name(l), ID: imageID(d.id), Size: int64(len(d.data))})
	}
	slices.SortFunc(list, func(a, b batch.Image) int { return int(a.Size - b.Size) })
	return list
}

func imageID(id string) store.ImageID { return store.ImageID{Cluster: "fsid", PoolID: 1, Image: id} }

func (p *pool) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

func (p *pool) noted() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

type claim struct {
	pool  *pool
	label string
	lost  chan struct{}
}

func (c *claim) Lost() <-chan struct{} { return c.lost }

func (c *claim) Release(context.Context) error {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.claims[c.label] == c {
		delete(c.pool.claims, c.label)
	}
	return nil
}

func (p *pool) Claim(_ context.Context, i batch.Image) (batch.Claim, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims[i.Label] != nil {
		return nil, fmt.Errorf("%s: %w", i.Label, batch.ErrClaimed)
	}
	c := &claim{p, i.Label, make(chan struct{})}
	p.claims[i.Label] = c
	return c, nil
}

// seize gives a claim to somebody else.
func (p *pool) seize(label string) *claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.claims[label]; c != nil {
		close(c.lost)
	}
	p.claims[label] = &claim{p, label, make(chan struct{})}
	return p.claims[label]
}

// outlives is for how long a dead node's claim stands.
const outlives = 20 * time.Millisecond

func (p *pool) Outlives() time.Duration { return outlives }

func (p *pool) Prepared(_ context.Context, i batch.Image, _ time.Duration, runs map[store.RunID]bool) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.log, func(s string) bool {
		return s == "prepare "+i.Label || s == "begin "+i.Label && len(runs) > 0
	}), nil
}

func (p *pool) Prepare(_ context.Context, i batch.Image, _ time.Duration) error {
	p.note("prepare %s", i.Label)
	return nil
}

func (p *pool) Identify(_ context.Context, i batch.Image) (store.ImageID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return imageID(p.disks[i.Label].id), nil
}

// errOthers is what refuses an image whose name is another's that is there.
var errOthers = errors.New("the name is another image's")

func (p *pool) Admit(_ context.Context, i batch.Image, newest *store.Level) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for label, d := range p.disks {
		if label != i.Label && newest.Of(imageID(d.id)) {
			return errOthers
		}
	}
	return nil
}

func (p *pool) Exists(_ context.Context, i batch.Image) (bool, error) {
	return !p.disks[i.Label].gone, nil
}

func (p *pool) Source(i batch.Image) engine.Source {
	return &source{pool: p, label: i.Label, disk: p.disks[i.Label]}
}

type source struct {
	pool  *pool
	label string
	disk  *disk
	ctx   context.Context
}

func (s *source) Begin(ctx context.Context, _ engine.Run) (*engine.State, error) {
	s.pool.note("begin %s", s.label)
	s.ctx = ctx
	if s.disk.begin != nil {
		if err := s.disk.begin(); err != nil {
			return nil, err
		}
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.pool.working++
	s.pool.mostWorking = max(s.pool.mostWorking, s.pool.working)
	return &engine.State{
		View: engine.View{Reader: s, Size: int64(len(s.disk.data))},
		Origin: store.Origin{
			Kind: "rbd", Time: time.Now(), Diff: store.DiffNone,
			RBD: &store.RBDOrigin{Cluster: "fsid", PoolID: 1, Image: s.label, ImageID: s.disk.id},
		},
	}, nil
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	s.pool.mu.Lock()
	s.pool.reading++
	s.pool.mostReading = max(s.pool.mostReading, s.pool.reading)
	s.pool.mu.Unlock()
	defer func() {
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		s.pool.reading--
	}()
	if s.disk.read != nil {
		if err := s.disk.read(s.ctx); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.disk.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *source) Recheck(context.Context) error { return nil }

func (s *source) End(context.Context, engine.Outcome) error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.pool.working--
	return nil
}

func newRepository(t *testing.T) *store.Repository {
	t.Helper()
	r, err := store.Init(t.Context(), mem.New(), store.Parameters{ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func levels(t *testing.T, r *store.Repository, name string) []store.Level {
	t.Helper()
	l, err := r.Levels(t.Context(), store.Name(name))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// words are what became of the images, by their labels.
func words(results []batch.Result) map[string]batch.Word {
	m := map[string]batch.Word{}
	for _, r := range results {
		m[r.Image] = r.Result
	}
	return m
}

func expect(t *testing.T, results []batch.Result, want map[string]batch.Word) {
	t.Helper()
	got := words(results)
	for label, w := range want {
		if got[label] != w {
			t.Errorf("%s: %s, want %s", label, got[label], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("results: %v", got)
	}
}

// What is most work is done first: the whole image where there is no level, what
// the last increments read where there is one.
func TestLargestFirst(t *testing.T) {
	p, r := newPool("a", "b", "c"), newRepository(t)
	for range 2 {
		results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Jobs: 1})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, results, map[string]batch.Word{"a": batch.Done, "b": batch.Done, "c": batch.Done})
	}
	want := []string{"begin c", "begin b", "begin a"}
	if got := p.noted(); !slices.Equal(got, append(want, want...)) {
		t.Errorf("order: %q", got)
	}
}

// One image's failure stops no other, and one that vanishes is no failure.
func TestFailures(t *testing.T) {
	p, r := newPool("bad", "gone", "good", "unreadable", "excluded", "nameless"), newRepository(t)
	p.disks["bad"].begin = func() error { return errors.New("no snapshot today") }
	p.disks["gone"].begin = func() error { p.disks["gone"].gone = true; return errors.New("no such image") }
	p.disks["unreadable"].read = func(context.Context) error { return errors.New("medium error") }
	images := p.images()
	for n := range images {
		switch images[n].Label {
		case "excluded":
			images[n].Rules.Exclude = true
		case "nameless":
			images[n].Err = errors.New("no name")
		}
	}
	results, err := batch.Run(t.Context(), r, p, images, batch.Options{Jobs: 2})
	var failed *batch.FailedError
	if !errors.As(err, &failed) || failed.Failed != 3 || failed.Images != 6 {
		t.Errorf("the run's error: %v", err)
	}
	expect(t, results, map[string]batch.Word{
		"bad": batch.Failed, "gone": batch.Gone, "good": batch.Done, "unreadable": batch.Failed,
		"excluded": batch.Excluded, "nameless": batch.Failed,
	})
	for _, res := range results {
		if (res.Result == batch.Failed) != (res.Err != nil && res.Error != "") {
			t.Errorf("%s: %s with the error %q", res.Image, res.Result, res.Error)
		}
	}
}

// A young level is enough; what is young an image may say itself, and a clock
// that was wrong once keeps no image from its backup.
func TestMinAge(t *testing.T) {
	p, r := newPool("a", "b", "c"), newRepository(t)
	images := p.images()
	if _, err := batch.Run(t.Context(), r, p, images, batch.Options{}); err != nil {
		t.Fatal(err)
	}
	never := time.Duration(0)
	images[1].Rules.MinAge = &never
	results, err := batch.Run(t.Context(), r, p, images, batch.Options{MinAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Young, "b": batch.Done, "c": batch.Young})
	if results[0].Level != 1 || results[0].Time.IsZero() || results[0].Seconds != 0 {
		t.Errorf("of a young one the level is told: %+v", results[0])
	}
	// The newest by number is of days ahead, or of before the one below it.
	for n, off := range map[int]time.Duration{0: -time.Hour / 2, 2: daysAhead} {
		src := shifted{p.Source(images[n]), off}
		if _, err := engine.Backup(t.Context(), r, images[n].Name, src, engine.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	results, err = batch.Run(t.Context(), r, p, images, batch.Options{MinAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Done, "b": batch.Done, "c": batch.Done})
}

const daysAhead = 72 * time.Hour

// shifted is a source whose clock is off.
type shifted struct {
	engine.Source
	by time.Duration
}

func (f shifted) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s, err := f.Source.Begin(ctx, run)
	if err == nil {
		s.Origin.Time = time.Now().Add(f.by)
	}
	return s, err
}

// Jobs bounds the images at a time, and Readers the reads of all of them.
func TestBounds(t *testing.T) {
	var labels []string
	for n := range 12 {
		labels = append(labels, fmt.Sprintf("image%02d", n))
	}
	p, r := newPool(labels...), newRepository(t)
	for _, d := range p.disks {
		d.data = append(d.data, make([]byte, 20<<20)...)
		d.read = func(context.Context) error { time.Sleep(time.Millisecond); return nil }
	}
	if _, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Jobs: 3, Readers: 2}); err != nil {
		t.Fatal(err)
	}
	if p.mostWorking > 3 || p.mostReading > 2 {
		t.Errorf("%d images and %d reads at a time", p.mostWorking, p.mostReading)
	}
	if p.mostWorking < 2 || p.mostReading < 2 {
		t.Errorf("only %d images and %d reads at a time", p.mostWorking, p.mostReading)
	}
}

// The snapshots of all images come before any is read; or nothing but they.
func TestSnapshotsFirst(t *testing.T) {
	p, r := newPool("a", "b", "c"), newRepository(t)
	results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Snapshots: batch.Only})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Prepared, "b": batch.Prepared, "c": batch.Prepared})
	if got := p.noted(); len(got) != 3 {
		t.Errorf("done: %q", got)
	}
	p.log = nil
	results, err = batch.Run(t.Context(), r, p, p.images(), batch.Options{Snapshots: batch.First, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Done, "b": batch.Done, "c": batch.Done})
	log := p.noted()
	slices.Sort(log[:3])
	if want := []string{"prepare a", "prepare b", "prepare c", "begin c", "begin b", "begin a"}; !slices.Equal(log, want) {
		t.Errorf("done: %q", log)
	}
}

// The policy is applied after a success, and to nothing else.
func TestKeep(t *testing.T) {
	p, r := newPool("a", "b", "bad"), newRepository(t)
	for range 3 {
		if _, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	images := p.images()
	images[1].Rules = engine.ParseRules(map[string]string{"backy.keep-last": "3"})
	p.disks["bad"].begin = func() error { return errors.New("not today") }
	results, err := batch.Run(t.Context(), r, p, images, batch.Options{Keep: &engine.Keep{Last: 1}})
	if err == nil {
		t.Error("a failure, and no error")
	}
	expect(t, results, map[string]batch.Word{"a": batch.Done, "b": batch.Done, "bad": batch.Failed})
	if got := results[0].Removed; !slices.Equal(got, []store.LevelNumber{3, 2, 1}) {
		t.Errorf("removed of a: %v", got)
	}
	for name, want := range map[string]int{"a": 1, "b": 3, "bad": 3} {
		if got := len(levels(t, r, name)); got != want {
			t.Errorf("%s has %d levels, want %d", name, got, want)
		}
	}
}

// What an image's metadata asks for is kept besides what the run keeps; it has
// less kept only if the run allows it. If it is not understood, nothing of that
// image goes, and the result says so.
func TestKeepByMetadata(t *testing.T) {
	metadata := map[string]map[string]string{
		"less": {"backy.keep-last": "1"}, "more": {"backy.keep-last": "3"}, "unclear": {"backy.keep-daily": "7d"},
		"odd": {"backy.colour": "blue"}, "none": nil,
	}
	for _, tt := range []struct {
		less bool
		want map[string]int // levels left of 4 and a new one
	}{
		{false, map[string]int{"less": 2, "more": 3, "unclear": 5, "odd": 2, "none": 2}},
		{true, map[string]int{"less": 1, "more": 3, "unclear": 5, "odd": 2, "none": 2}},
	} {
		p, r := newPool("less", "more", "none", "odd", "unclear"), newRepository(t)
		for range 4 {
			if _, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		images := p.images()
		for i := range images {
			images[i].Rules = engine.ParseRules(metadata[images[i].Label])
		}
		results, err := batch.Run(t.Context(), r, p, images, batch.Options{Keep: &engine.Keep{Last: 2}, KeepLess: tt.less})
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range results {
			if got := len(levels(t, r, res.Image)); res.Result != batch.Done || got != tt.want[res.Image] {
				t.Errorf("%s, less allowed: %v: %s, %d levels, want %d", res.Image, tt.less, res.Result, got, tt.want[res.Image])
			}
			said := 0
			if res.Image == "unclear" || res.Image == "odd" {
				said = 1
			}
			if len(res.Warnings) != said || (len(res.Unclear) > 0) != (res.Image == "unclear") {
				t.Errorf("%s: warnings %q, unclear %q", res.Image, res.Warnings, res.Unclear)
			}
		}
	}
}

// Metadata shorten --min-age and never lengthen it, however the clocks are.
func TestMinAgeByMetadata(t *testing.T) {
	p, r := newPool("far", "soon", "unclear", "ahead"), newRepository(t)
	images := p.images()
	if _, err := batch.Run(t.Context(), r, p, images, batch.Options{}); err != nil {
		t.Fatal(err)
	}
	for i := range images {
		value := map[string]string{"far": "10y", "soon": "1ms", "unclear": "12", "ahead": "10y"}[images[i].Label]
		images[i].Rules = engine.ParseRules(map[string]string{"backy.min-age": value})
		if images[i].Label == "ahead" {
			if _, err := engine.Backup(t.Context(), r, "ahead", shifted{p.Source(images[i]), daysAhead}, engine.BackupOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(2 * time.Millisecond)
	for _, tt := range []struct {
		run time.Duration
		far batch.Word
	}{{time.Hour, batch.Young}, {time.Millisecond, batch.Done}} {
		results, err := batch.Run(t.Context(), r, p, images, batch.Options{MinAge: tt.run})
		if err != nil {
			t.Fatal(err)
		}
		got := words(results)
		delete(got, "ahead") // of now, once there is another level
		if want := map[string]batch.Word{"far": tt.far, "soon": batch.Done, "unclear": batch.Done}; !maps.Equal(got, want) {
			t.Errorf("min-age %s: %v, want %v", tt.run, got, want)
		}
		if tt.run == time.Hour && words(results)["ahead"] != batch.Done {
			t.Errorf("a level of the future: %v", words(results))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A run that is ended says so of what it had not done.
func TestEnded(t *testing.T) {
	p, r := newPool("a", "b", "c"), newRepository(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	p.disks["b"].read = func(ctx context.Context) error {
		cancel(cause)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	results, err := batch.Run(ctx, r, p, p.images(), batch.Options{Jobs: 1})
	if !errors.Is(err, cause) {
		t.Errorf("the run's error: %v", err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Ended, "b": batch.Ended, "c": batch.Done})
	if len(p.claims) > 0 {
		t.Errorf("claims are left: %v", p.claims)
	}
}
