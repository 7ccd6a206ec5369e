package health_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/health"
	"backy/store"
	"backy/store/mem"
)

// start is when the first level of each name was made.
var start = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// source is an image in memory.
type source struct {
	data   []byte
	at     time.Time
	origin *store.RBDOrigin
}

func (s *source) Begin(_ context.Context, run engine.Run) (*engine.State, error) {
	st := &engine.State{
		View:   engine.View{Reader: s, Size: int64(len(s.data))},
		Origin: store.Origin{Kind: "rbd", Diff: store.DiffNone, Time: s.at, RBD: s.origin},
	}
	if len(run.Levels) > 0 {
		st.Base = &run.Levels[0]
	}
	return st, nil
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *source) Recheck(context.Context) error             { return nil }
func (s *source) End(context.Context, engine.Outcome) error { return nil }

type bench struct {
	*testing.T
	repo *store.Repository
	mem  *mem.Mem
}

func newBench(t *testing.T) *bench {
	t.Helper()
	m := mem.New()
	repo, err := store.Init(t.Context(), m, store.Parameters{ChunkSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, repo, m}
}

// backup makes a level of random bytes, the same for one seed.
func (b *bench) backup(name store.Name, at time.Time, seed byte, origin *store.RBDOrigin) store.Level {
	b.Helper()
	data := make([]byte, 160<<10)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(data); err != nil {
		b.Fatal(err)
	}
	l, err := engine.Backup(b.Context(), b.repo, name, &source{data, at, origin}, engine.BackupOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (b *bench) look(i health.Image, o health.Options) health.Item {
	b.Helper()
	r, err := health.Look(b.Context(), b.repo, []health.Image{i}, o)
	if err != nil {
		b.Fatal(err)
	}
	return r.Items[0]
}

// What is demanded of an image, at the edges.
func TestLook(t *testing.T) {
	b := newBench(t)
	ours := &store.RBDOrigin{Cluster: "fsid", PoolID: 1, ImageID: "1"}
	b.backup("vms/web1", start, 1, ours)
	scrubbed := b.backup("vms/scrubbed.1", start, 2, ours)
	if err := b.repo.MarkScrubbed(t.Context(), &scrubbed, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		b.backup("strange", start.Add(time.Duration(n)*time.Hour), byte(n/6), ours)
	}
	day := 24 * time.Hour
	for n := range 4 {
		b.backup("ahead", start.Add(time.Duration(n)*time.Hour), byte(n), ours)
		b.backup("behind", start.Add(time.Duration(n)*time.Hour), byte(n), ours)
	}
	b.backup("ahead", start.AddDate(10, 0, 0), 9, ours)
	b.backup("behind", start.AddDate(-26, 0, 0), 9, ours)
	b.backup("never known", start.AddDate(10, 0, 0), 9, ours)
	b.backup("corrected", start.AddDate(10, 0, 0), 9, ours)
	b.backup("corrected", start.Add(time.Hour), 9, ours)
	for n, at := range map[store.Name]time.Time{"ahead": start, "behind": start, "never known": start, "corrected": start, "strange": start.AddDate(10, 0, 0)} {
		levels, err := b.repo.Levels(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.repo.MarkScrubbed(t.Context(), &levels[0], at); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		what  string
		image health.Image
		o     health.Options
		want  []health.Word
		state health.Word // where nothing is wrong
	}{
		{what: "never scrubbed", image: health.Image{Name: "vms/web1"}, want: []health.Word{health.Unscrubbed}},
		{what: "scrubbed", image: health.Image{Name: "vms/scrubbed.1"}, state: health.Fine},
		{
			what: "just young enough", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxAge: day, Now: start.Add(day)}, state: health.Fine,
		},
		{
			what: "just too old", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxAge: day, Now: start.Add(day + 1)}, want: []health.Word{health.Old},
		},
		{
			what: "metadata excuse no old level", image: health.Image{Name: "vms/scrubbed.1", Rules: engine.Rules{MinAge: &day}},
			o: health.Options{MaxAge: day, Now: start.Add(2 * day)}, want: []health.Word{health.Old},
		},
		{
			what: "two problems, the worse first", image: health.Image{Name: "vms/web1"},
			o: health.Options{MaxAge: day, Now: start.Add(day + 1)}, want: []health.Word{health.Old, health.Unscrubbed},
		},
		{
			what: "scrubbed just lately enough", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxScrubAge: day, Now: start.Add(time.Hour + day)}, state: health.Fine,
		},
		{
			what: "scrubbed too long ago", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxScrubAge: day, Now: start.Add(time.Hour + day + 1)}, want: []health.Word{health.Unscrubbed},
		},
		{
			what: "too new to have been scrubbed", image: health.Image{Name: "vms/web1"},
			o: health.Options{MaxScrubAge: day, Now: time.Now().Add(day / 2)}, state: health.Fine,
		},
		{what: "no level", image: health.Image{Name: "vms/web9"}, want: []health.Word{health.Missing}},
		{
			what: "no level yet", image: health.Image{Name: "vms/web9", Created: start},
			o: health.Options{MaxAge: day, Now: start.Add(day)}, state: health.New,
		},
		{
			what: "no level any longer excused", image: health.Image{Name: "vms/web9", Created: start},
			o: health.Options{MaxAge: day, Now: start.Add(day + 1)}, want: []health.Word{health.Missing},
		},
		{what: "the image of the levels", image: health.Image{Name: "vms/scrubbed.1", ID: store.ImageID{Cluster: "fsid", PoolID: 1, Image: "1"}}, state: health.Fine},
		{
			what: "an image made anew", image: health.Image{Name: "vms/scrubbed.1", ID: store.ImageID{Cluster: "fsid", PoolID: 1, Image: "2"}},
			want: []health.Word{health.Missing},
		},
		{
			what: "another cluster's", image: health.Image{Name: "vms/scrubbed.1", ID: store.ImageID{Cluster: "other", PoolID: 1, Image: "1"}},
			want: []health.Word{health.Missing},
		},
		{
			what: "another pool's", image: health.Image{Name: "vms/scrubbed.1", ID: store.ImageID{Cluster: "fsid", PoolID: 2, Image: "1"}},
			want: []health.Word{health.Missing},
		},
		{
			what: "a level of the future, and the one before is young enough", image: health.Image{Name: "ahead"},
			o: health.Options{MaxAge: day, Now: start.Add(3*time.Hour + day)}, want: []health.Word{health.Misdated},
		},
		{
			what: "a level of the future, and the one before is too old", image: health.Image{Name: "ahead"},
			o: health.Options{MaxAge: day, Now: start.Add(3*time.Hour + day + 1)}, want: []health.Word{health.Old, health.Misdated},
		},
		{
			what: "a level of the past, and the one before is young enough", image: health.Image{Name: "behind"},
			o: health.Options{MaxAge: day, Now: start.Add(3*time.Hour + day)}, want: []health.Word{health.Misdated},
		},
		{
			what: "nothing but a level of the future", image: health.Image{Name: "never known"},
			o: health.Options{MaxAge: day, Now: start}, want: []health.Word{health.Old, health.Misdated},
		},
		{what: "that, and any age is good", image: health.Image{Name: "never known"}, o: health.Options{Now: start}, want: []health.Word{health.Misdated}},
		{
			what: "a level of the future among others", image: health.Image{Name: "corrected"},
			o: health.Options{MaxAge: day, Now: start.Add(day)}, want: []health.Word{health.Misdated},
		},
		{
			what: "this host's clock is far behind", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxAge: day, Now: start.AddDate(-26, 0, 0)}, want: []health.Word{health.Old, health.Misdated, health.Unscrubbed},
		},
		{
			what: "clocks differ a little", image: health.Image{Name: "vms/scrubbed.1"},
			o: health.Options{MaxAge: day, Now: start.Add(-4 * time.Minute), MaxScrubAge: 100 * 365 * day}, want: []health.Word{health.Unscrubbed},
		},
		{
			what: "scrubbed in the future", image: health.Image{Name: "strange"},
			want: []health.Word{health.Unusual, health.Unscrubbed},
		},
		{
			what: "made in the future", image: health.Image{Name: "vms/web9", Created: start.AddDate(10, 0, 0)},
			o: health.Options{MaxAge: day, Now: start.Add(day)}, want: []health.Word{health.Missing},
		},
		{
			what: "excluded, though it has levels", image: health.Image{Name: "vms/scrubbed.1", Rules: engine.Rules{Exclude: true}},
			o: health.Options{MaxAge: day, Now: start.Add(90 * day)}, want: []health.Word{health.Excluded},
		},
		{
			what: "excluded, with levels that are misdated", image: health.Image{Name: "ahead", Rules: engine.Rules{Exclude: true}},
			o: health.Options{MaxAge: day, Now: start.Add(90 * day)}, want: []health.Word{health.Misdated, health.Excluded},
		},
		{what: "excluded", image: health.Image{Name: "vms/web9", Rules: engine.Rules{Exclude: true}}, state: health.Excluded},
		{what: "out of reach", image: health.Image{Err: errors.New("no answer")}, want: []health.Word{health.Unknown}},
		{
			what: "out of reach, but it has levels", image: health.Image{Name: "vms/scrubbed.1", Err: errors.New("no answer")},
			o: health.Options{MaxAge: day, Now: start.Add(day + 1)}, want: []health.Word{health.Old, health.Unknown},
		},
		{what: "out of reach and without any", image: health.Image{Name: "vms/web9", Err: errors.New("no answer")}, want: []health.Word{health.Unknown}},
		{what: "far off what is usual", image: health.Image{Name: "strange"}, o: health.Options{MaxScrubAge: day}, want: []health.Word{health.Unusual}},
	} {
		got := b.look(tt.image, tt.o)
		want := tt.state
		if len(tt.want) > 0 {
			want = tt.want[0]
		}
		if !slices.Equal(got.Problems, tt.want) || got.State != want {
			t.Errorf("%s: %s %v, want %s %v", tt.what, got.State, got.Problems, want, tt.want)
		}
		if len(tt.want) > 0 && got.Why == "" {
			t.Errorf("%s: it does not say why", tt.what)
		}
	}
}

// Known damage counts for each level that needs it, also for those in which
// nobody has met it; and looking changes nothing.
func TestDamage(t *testing.T) {
	b := newBench(t)
	l := b.backup("a", start, 1, nil)
	b.backup("a", start.Add(time.Hour), 2, nil)
	b.backup("b", start, 1, nil) // the same bytes
	if got := b.look(health.Image{Name: "b"}, health.Options{}); slices.Contains(got.Problems, health.Damaged) {
		t.Fatalf("damaged: %+v", got)
	}
	leaf, err := b.repo.Cursor(l.Map()).At(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	bad := &store.ChunkError{Kind: store.KindData, Ref: leaf.Refs[3], Cause: errors.New("checksum")}
	if err := b.repo.NoteDamage(t.Context(), &l, bad); err != nil {
		t.Fatal(err)
	}
	before := len(b.keys())
	got := b.look(health.Image{Name: "a"}, health.Options{})
	if got.State != health.Damaged || got.DamagedChunks != 1 || !slices.Equal(got.DamagedLevels, []store.LevelNumber{1}) {
		t.Errorf("a: %+v", got)
	}
	if got := b.look(health.Image{Name: "b"}, health.Options{}); got.State != health.Damaged || got.DamagedChunks != 1 {
		t.Errorf("b: %+v", got)
	}
	if now := len(b.keys()); now != before {
		t.Errorf("%d objects, there were %d", now, before)
	}
}

func (b *bench) keys() (keys []string) {
	b.Helper()
	err := b.mem.List(b.Context(), "", func(key string, _ int64) error { keys = append(keys, key); return nil })
	if err != nil {
		b.Fatal(err)
	}
	return keys
}

// What is bad goes before what is not known, and that before what is odd.
func TestState(t *testing.T) {
	with := func(words ...health.Word) health.Report {
		var r health.Report
		for _, w := range words {
			r.Items = append(r.Items, health.Item{State: w, Problems: []health.Word{w}})
		}
		return r
	}
	for _, tt := range []struct {
		r    health.Report
		want health.State
	}{
		{with(), health.OK},
		{health.Report{Items: []health.Item{{State: health.New}, {State: health.Gone}, {State: health.Excluded}}}, health.OK},
		{health.Report{Spare: 1}, health.Warning},
		{with(health.Unscrubbed), health.Warning},
		{with(health.Unusual), health.Warning},
		{with(health.Unusual, health.Unknown), health.Undecidable},
		{with(health.Unknown, health.Old), health.Critical},
		{with(health.Missing), health.Critical},
		{with(health.Damaged, health.Unscrubbed), health.Critical},
	} {
		if got := tt.r.State(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.r, got, tt.want)
		}
	}
}

// A removal that cannot be read is no level's damage, and is told.
func TestBadRemoval(t *testing.T) {
	b := newBench(t)
	b.backup("a", start, 1, nil)
	b.backup("a", start.Add(time.Hour), 2, nil)
	if err := b.mem.Put(t.Context(), "levels/a/1.removed", nil); err != nil {
		t.Fatal(err)
	}
	got := b.look(health.Image{Name: "a"}, health.Options{})
	if got.State != health.Damaged || got.Levels != 2 || len(got.DamagedLevels) > 0 || !strings.Contains(got.Why, "backy recover") {
		t.Errorf("%+v", got)
	}
}
