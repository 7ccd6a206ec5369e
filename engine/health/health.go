// Package health tells how well images are backed up, by what a repository
// holds of them. It writes nothing.
package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"backy/engine"
	"backy/store"
)

// Image is one that should be backed up. For a name of which only the
// repository is known, Name alone is set.
type Image struct {
	Label string // how people name it: rbd:vms/web1
	Name  store.Name
	Rules engine.Rules

	// ID is that of the image that has the label now: levels of an earlier image
	// with this label are none of it. Zero: unknown.
	ID      store.ImageID
	Created time.Time // zero: unknown

	// Err is why nothing is known of the image.
	Err error
}

// Options say what is demanded. The zero value demands levels, but no age.
type Options struct {
	MaxAge      time.Duration // of the newest level; 0: any
	MaxScrubAge time.Duration // since a level was last found whole; 0: any, but there must be one
	Now         time.Time     // zero: the current time
}

// Word is how it is about an image.
type Word string

// What can be wrong with an image, the worst first, and what else can be said of
// one.
const (
	Damaged    Word = "damaged"    // something of a level is known to be bad, or a level's record or removal cannot be read
	Missing    Word = "missing"    // it has no level
	Old        Word = "old"        // its newest level is older than MaxAge
	Unknown    Word = "unknown"    // it could not be looked at
	Misdated   Word = "misdated"   // the time of a level contradicts its number or the present: see engine.Dating
	Unusual    Word = "unusual"    // its newest level is far off those before: see engine.Unusual
	Unscrubbed Word = "unscrubbed" // no level was found whole, or none for MaxScrubAge

	Fine     Word = "fine"
	New      Word = "new"      // it has no level, and is younger than MaxAge
	Excluded Word = "excluded" // its owner wants no backup; a problem if it has levels
	Gone     Word = "gone"     // there are levels, but no such image any more
)

// Words are all of them in the order in which they are told.
var Words = []Word{Damaged, Missing, Old, Unknown, Misdated, Unusual, Unscrubbed, Fine, New, Excluded, Gone}

// State is how bad something is.
type State string

// The states, as monitoring systems name them.
const (
	OK          State = "ok"
	Warning     State = "warning"
	Critical    State = "critical"
	Undecidable State = "unknown"
)

// states are those of the words that are not OK.
var states = map[Word]State{
	Damaged: Critical, Missing: Critical, Old: Critical, Unknown: Undecidable, Misdated: Warning, Unusual: Warning, Unscrubbed: Warning,
	Excluded: Warning,
}

// rank orders the states: what is known to be bad goes before what is not known.
func rank(s State) int { return slices.Index([]State{OK, Warning, Undecidable, Critical}, s) }

// Worse is the worse of two states.
func Worse(a, b State) State {
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// Item is what is known of an image or a name.
type Item struct {
	Image    string            `json:"image,omitempty"`
	Name     store.Name        `json:"name,omitempty"`
	State    Word              `json:"state"`              // the worst
	Problems []Word            `json:"problems,omitempty"` // all that is wrong
	Levels   int               `json:"levels"`             // how many
	Level    store.LevelNumber `json:"level,omitempty"`    // the newest, its time, its size
	Time     time.Time         `json:"time,omitzero"`
	Size     int64             `json:"size,omitempty"`
	Scrubbed time.Time         `json:"scrubbed,omitzero"` // when a level was last found whole

	// DamagedLevels are those of which something is known to be bad, or whose
	// records cannot be read; DamagedChunks counts the bad places of all.
	DamagedLevels []store.LevelNumber `json:"damaged_levels,omitempty"`
	DamagedChunks int64               `json:"damaged_chunks"`

	// MisdatedLevels are those whose times are not believed.
	MisdatedLevels []store.LevelNumber `json:"misdated_levels,omitempty"`

	Unusual []engine.Unusual `json:"unusual,omitempty"`
	Why     string           `json:"why,omitempty"` // a sentence

	Newest *store.Level `json:"-"`

	// Dated is the newest level whose time tells its age; nil: none.
	Dated *store.Level `json:"-"`
}

// Worst is how bad the worst of its problems is.
func (it *Item) Worst() State {
	s := OK
	for _, p := range it.Problems {
		s = Worse(s, states[p])
	}
	return s
}

// AgeKnown reports whether the newest level's time tells its age.
func (it *Item) AgeKnown() bool {
	return it.Newest == nil || it.Dated != nil && it.Dated.Number == it.Newest.Number
}

// Report is how it is about all of them.
type Report struct {
	Items []Item

	// Spare is how many bad copies of map nodes and tables are known: the next backups
	// mend them from good ones. If a level has no good one, Items says so.
	Spare int64

	// Unreadable is why it cannot be told whether a level's record is lost; nil:
	// none is, but for those that Items name.
	Unreadable error
}

// Count is how many items have a word for their state.
func (r *Report) Count(w Word) (n int) {
	for i := range r.Items {
		if r.Items[i].State == w {
			n++
		}
	}
	return n
}

// Having is how many items have a problem, be it the worst or not.
func (r *Report) Having(w Word) (n int) {
	for i := range r.Items {
		if slices.Contains(r.Items[i].Problems, w) {
			n++
		}
	}
	return n
}

// State is the worst of all.
func (r *Report) State() State {
	s := OK
	if r.Spare > 0 {
		s = Warning
	}
	if r.Unreadable != nil {
		s = Critical
	}
	for i := range r.Items {
		s = Worse(s, r.Items[i].Worst())
	}
	return s
}

// lookups is how many names are looked up at a time.
const lookups = 8

// Look tells how well images are backed up, in their order.
func Look(ctx context.Context, repo *store.Repository, images []Image, o Options) (Report, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	var r Report
	known, err := repo.Damage(ctx)
	if err != nil {
		return r, err
	}
	damaged, err := repo.DamagedLevels(ctx, known)
	if err != nil {
		return r, fmt.Errorf("find out which levels are damaged: %w", err)
	}
	scrubs, err := repo.AllScrubbed(ctx)
	if err != nil {
		return r, err
	}
	r.Spare = known.Spare()
	r.Items = make([]Item, len(images))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	looks := make([]look, len(images))
	for i := range images {
		g.Go(func() error {
			looks[i] = look{image: &images[i], o: o, item: &r.Items[i]}
			return looks[i].run(gctx, repo, damaged, scrubs)
		})
	}
	err = g.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = r.lost(ctx, repo, looks)
	}
	return r, err
}

// lost finds levels whose records are lost, of names that nobody asked for too:
// until they are recovered, nothing is collected.
func (r *Report) lost(ctx context.Context, repo *store.Repository, looks []look) error {
	known := map[store.Name]*store.History{}
	for i := range looks {
		if h := looks[i].history; h != nil {
			known[h.Name] = h
		}
	}
	lost, err := repo.LostLevels(ctx, known)
	if err != nil {
		return fmt.Errorf("find out whether levels' records are lost: %w", err)
	}
	if lost == nil {
		return nil
	}
	r.Unreadable = lost.Unreadable
	numbers := map[store.Name][]store.LevelNumber{}
	for _, l := range lost.Levels {
		numbers[l.Name] = append(numbers[l.Name], l.Number)
	}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		i := slices.IndexFunc(looks, func(l look) bool { return l.image.Name == name })
		l := look{item: &Item{Name: name, State: Damaged}}
		if i >= 0 {
			l = looks[i]
		}
		l.item.DamagedLevels = append(l.item.DamagedLevels, numbers[name]...)
		slices.Sort(l.item.DamagedLevels)
		l.wrong(Damaged, fmt.Sprintf("level %s: the record is lost; backy recover puts it back", join(numbers[name])))
		if i < 0 {
			r.Items = append(r.Items, *l.item)
		}
	}
	return nil
}

// look is at one image.
type look struct {
	image   *Image
	o       Options
	item    *Item
	history *store.History

	misdated string // what is wrong with the times of levels
}

func (l *look) run(ctx context.Context, repo *store.Repository, damaged []store.LevelDamage, scrubbed store.ScrubTimes) error {
	it, im := l.item, l.image
	it.Image, it.Name, it.State = im.Label, im.Name, Fine
	if im.Rules.Exclude {
		return l.excluded(ctx, repo, damaged)
	}
	if im.Err != nil {
		l.wrong(Unknown, im.Err.Error())
		if im.Name == "" {
			return nil
		}
	}
	h, err := repo.History(ctx, im.Name)
	if err != nil {
		return err
	}
	l.history = &h
	l.levels(&h)
	l.damage(&h, damaged)
	l.age()
	l.scrubs(h.Levels, scrubbed)
	return nil
}

// excluded looks at an image whose owner wants no backup. That it has levels
// means that somebody wanted them, and that they grow old unseen.
func (l *look) excluded(ctx context.Context, repo *store.Repository, damaged []store.LevelDamage) error {
	it := l.item
	it.State = Excluded
	if l.image.Name == "" {
		return nil
	}
	h, err := repo.History(ctx, l.image.Name)
	if err != nil {
		return err
	}
	if len(h.Levels)+len(h.Bad) == 0 {
		return nil
	}
	l.levels(&h)
	l.damage(&h, damaged)
	l.wrong(Excluded, "it has levels, and its metadata exclude it from backups now")
	return nil
}

// wrong notes a problem. The first reason that is told stays.
func (l *look) wrong(w Word, why string) {
	it := l.item
	if !slices.Contains(it.Problems, w) {
		it.Problems = append(it.Problems, w)
	}
	slices.SortFunc(it.Problems, func(a, b Word) int { return slices.Index(Words, a) - slices.Index(Words, b) })
	it.State = it.Problems[0]
	if it.Why == "" || it.State == w {
		it.Why = why
	}
}

// levels finds the newest one that is of this image.
func (l *look) levels(h *store.History) {
	it := l.item
	it.Levels = len(h.Levels)
	dating := engine.Date(h.Levels, l.o.Now)
	for i := len(h.Levels) - 1; i >= 0; i-- {
		if level := &h.Levels[i]; l.of(level) {
			it.Newest = level
			it.Level, it.Time, it.Size = level.Number, level.Time, level.Size
			it.Unusual = engine.FindUnusual(*level, h.Levels[:i])
			break
		}
	}
	if len(it.Unusual) > 0 {
		l.wrong(Unusual, it.Unusual[0].String())
	}
	for i := range h.Levels {
		if level := &h.Levels[i]; l.of(level) && dating.TellsAge(level.Number) {
			it.Dated = level // the newest, at last
		}
	}
	if it.MisdatedLevels = dating.Misdated(); len(it.MisdatedLevels) > 0 {
		l.misdated = strings.Join(dating.Sentences(), "; ")
		l.wrong(Misdated, l.misdated)
	}
}

// of reports whether a level is of the image that has its label now. Of what
// came from elsewhere, such as a mapped device, that cannot be told.
func (l *look) of(level *store.Level) bool {
	return l.image.ID == store.ImageID{} || level.Origin.RBD == nil || level.Of(l.image.ID)
}

func (l *look) damage(h *store.History, damaged []store.LevelDamage) {
	it := l.item
	for _, d := range damaged {
		if d.Name == l.image.Name {
			it.DamagedLevels = append(it.DamagedLevels, d.Number)
			it.DamagedChunks += d.Chunks
		}
	}
	if len(it.DamagedLevels) > 0 {
		l.wrong(Damaged, fmt.Sprintf("level %s: chunks are known to be bad or missing", join(it.DamagedLevels)))
	}
	var bad []error
	for _, b := range h.Bad {
		it.DamagedLevels = append(it.DamagedLevels, b.Number)
		bad = append(bad, fmt.Errorf("level %s cannot be read: %w", b.Number, b.Err))
	}
	if err := errors.Join(bad...); err != nil && !slices.Contains(it.Problems, Damaged) {
		l.wrong(Damaged, err.Error())
	}
	slices.Sort(it.DamagedLevels)
	it.DamagedLevels = slices.Compact(it.DamagedLevels)
	for _, b := range h.BadRemovals {
		if !slices.Contains(it.Problems, Damaged) {
			l.wrong(Damaged, fmt.Sprintf("a removal is ignored: %v; backy recover puts it right", b.Err))
		}
	}
}

func join(numbers []store.LevelNumber) (s string) {
	for i, n := range numbers {
		if i > 0 {
			s += ", "
		}
		s += n.String()
	}
	return s
}

// age demands a level that is young enough. One whose time is not believed may
// be of any age.
func (l *look) age() {
	it, now := l.item, l.o.Now
	created := l.image.Created
	switch {
	case it.Newest != nil && l.o.MaxAge == 0:
	case it.Newest != nil && it.Dated == nil:
		l.wrong(Old, "the age of its levels is unknown: "+l.misdated)
	case it.Newest != nil:
		if age := now.Sub(it.Dated.Time); age > l.o.MaxAge {
			what := "the newest level"
			if !it.AgeKnown() {
				what = fmt.Sprintf("level %s, the newest whose time can be believed,", it.Dated.Number)
			}
			l.wrong(Old, fmt.Sprintf("%s is %s old", what, age.Round(time.Minute)))
		}
	case !created.IsZero() && l.o.MaxAge > 0 && now.Sub(created) <= l.o.MaxAge && !engine.Future(created, now):
		if it.State == Fine {
			it.State = New
		}
	case it.Levels > 0: // of others
		l.wrong(Missing, "its levels are of another image")
	case l.image.Err == nil: // else its owner may not want any
		l.wrong(Missing, "it has no level")
	}
}

// scrubs demands that a level was found whole: of a new name not before
// MaxScrubAge is over, where there is such a limit.
func (l *look) scrubs(levels []store.Level, scrubbed store.ScrubTimes) {
	it := l.item
	if len(levels) == 0 {
		return
	}
	since := levels[0].Committed
	for i := range levels {
		if at := scrubbed.Of(&levels[i]); at.After(it.Scrubbed) && !engine.Future(at, l.o.Now) {
			it.Scrubbed = at
		}
	}
	if !it.Scrubbed.IsZero() {
		since = it.Scrubbed
	}
	switch {
	case l.o.MaxScrubAge > 0 && (l.o.Now.Sub(since) > l.o.MaxScrubAge || engine.Future(since, l.o.Now)):
		l.wrong(Unscrubbed, "no level was scrubbed lately")
	case l.o.MaxScrubAge == 0 && it.Scrubbed.IsZero():
		l.wrong(Unscrubbed, "no level was ever scrubbed")
	}
}
