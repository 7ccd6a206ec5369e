package batch_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/batch"
	"backy/store"
)

// Two images of one name never become levels of it in one run: who has its
// newest level goes on, and if none of them has, all are refused. Others are
// backed up.
func TestSameName(t *testing.T) {
	p, r := newPool("a", "b", "c"), newRepository(t)
	images := p.images()
	images[1].Name = images[0].Name
	run := func(what string, wantLevel store.LevelNumber, want map[string]batch.Word) {
		t.Helper()
		results, err := batch.Run(t.Context(), r, p, images, batch.Options{Jobs: 2})
		var failed *batch.FailedError
		if !errors.As(err, &failed) {
			t.Errorf("%s: %v", what, err)
		}
		expect(t, results, want)
		for _, res := range results {
			var same *batch.SameNameError
			if res.Result == batch.Failed && (!errors.As(res.Err, &same) || same.A != res.Image || same.Level != wantLevel) {
				t.Errorf("%s: %s: %v", what, res.Image, res.Err)
			}
		}
	}
	run("neither has a level", 0, map[string]batch.Word{"a": batch.Failed, "b": batch.Failed, "c": batch.Done})
	if got := len(levels(t, r, "a")); got != 0 {
		t.Errorf("%d levels of a name that two want", got)
	}
	one := images[1]
	if _, err := batch.Run(t.Context(), r, p, []batch.Image{one}, batch.Options{}); err != nil {
		t.Fatal(err)
	}
	run("b has the newest", 1, map[string]batch.Word{"a": batch.Failed, "b": batch.Done, "c": batch.Done})
	for _, l := range levels(t, r, "a") {
		if l.Origin.RBD.ImageID != "b" {
			t.Errorf("level %s is of %s", l.Number, l.Origin.RBD.ImageID)
		}
	}
	images[0].Rules.Exclude = true
	if _, err := batch.Run(t.Context(), r, p, images, batch.Options{}); err != nil {
		t.Errorf("an excluded image wants no name: %v", err)
	}
}

// A name whose newest level is of another image is that one's, also if its level
// is young, and also if no run wants both at once.
func TestNameOfAnother(t *testing.T) {
	p, r := newPool("a", "b"), newRepository(t)
	images := p.images()
	images[1].Name = "a"
	hour := batch.Options{MinAge: time.Hour}
	if _, err := batch.Run(t.Context(), r, p, images[:1], hour); err != nil {
		t.Fatal(err)
	}
	for _, snapshots := range []batch.Snapshots{batch.Each, batch.First, batch.Only} {
		o := hour
		o.Snapshots = snapshots
		results, err := batch.Run(t.Context(), r, p, images[1:], o)
		if err == nil || !errors.Is(results[0].Err, errOthers) {
			t.Errorf("a young level of another image: %v, %+v", err, results[0])
		}
	}
	for _, done := range p.noted() {
		if done != "begin a" {
			t.Errorf("done to a refused image: %s", done)
		}
	}
}

// An image that was made again is another one: no level of the old one is its
// state, however young, and whoever made it.
func TestMadeAgain(t *testing.T) {
	p, r := newPool("a"), newRepository(t)
	hour := batch.Options{MinAge: time.Hour}
	run := func(what string, want batch.Word) {
		t.Helper()
		results, err := batch.Run(t.Context(), r, p, p.images(), hour)
		if err != nil || results[0].Result != want {
			t.Errorf("%s: %v, %+v", what, err, results[0])
		}
	}
	run("first", batch.Done)
	run("the same image", batch.Young)
	p.disks["a"].id = "second"
	run("made again", batch.Done)
	run("the new one", batch.Young)

	// While this run waits for a node that backs up the old image, the new one
	// comes: that node's level is not its state.
	other := p.seize("a")
	images := p.images()
	p.disks["a"].id = "third"
	go func() {
		old := &source{pool: p, label: "a", disk: &disk{id: "second", data: p.disks["a"].data}}
		if _, err := backup(r, "a", old); err != nil {
			t.Error(err)
		}
		if err := other.Release(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	results, err := batch.Run(t.Context(), r, p, images, batch.Options{Again: again})
	if err != nil || results[0].Result != batch.Done {
		t.Errorf("made again during the run: %v, %+v", err, results)
	}
	if l := levels(t, r, "a"); l[len(l)-1].Origin.RBD.ImageID != "third" {
		t.Errorf("the newest level is of %s", l[len(l)-1].Origin.RBD.ImageID)
	}
}

// A name with levels of something else, such as a file, is no image's: it is
// backed up, however young those are.
func TestNameOfFile(t *testing.T) {
	p, r := newPool("a"), newRepository(t)
	if _, err := backup(r, "a", plain{p.Source(p.images()[0])}); err != nil {
		t.Fatal(err)
	}
	results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{MinAge: time.Hour})
	if err != nil || results[0].Result != batch.Done {
		t.Errorf("%v, %+v", err, results[0])
	}
}

func backup(r *store.Repository, name store.Name, src engine.Source) (store.Level, error) {
	return engine.Backup(context.Background(), r, name, src, engine.BackupOptions{})
}

// plain is a source that is no image.
type plain struct{ engine.Source }

func (p plain) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s, err := p.Source.Begin(ctx, run)
	if err == nil {
		s.Origin.Kind, s.Origin.RBD = "file", nil
	}
	return s, err
}
