package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/engine/health"
	"backy/store"
)

// statusFlags are those of status alone.
type statusFlags struct {
	pickFlags
	maxAge      time.Duration
	maxScrubAge time.Duration
}

func (p *program) statusCommand() *cli.Command {
	f := statusFlags{maxAge: 26 * time.Hour}
	return &cli.Command{
		Name:      "status",
		Usage:     "tell whether everything is backed up, as monitoring asks",
		ArgsUsage: "[rbd:POOL] [BACKUPDIR]",
		UsageText: "backy status [options] [rbd:POOL[/NAMESPACE]] [BACKUPDIR]",
		Description: `Compares the images of a pool with the repository, or looks at the repository
alone. The first line is as monitoring plugins print it, with figures behind
"|" unless it goes to a terminal; a table of the images follows, the worst
first. What can be wrong:

damaged     (critical)  something of a level is known to be bad, or packs it
                        needs are missing
missing     (critical)  no level of this image; of one younger than --max-age
                        that is no fault: it is "new"
old         (critical)  the newest level is older than --max-age, or its age
                        is unknown and that of the one before is, too
unknown     (unknown)   the image cannot be looked at
misdated    (warning)   the times of levels contradict their numbers, or are
                        later than now: a clock was wrong, or is
unusual     (warning)   the newest level changed or compressed far off what
                        is usual for the image: did somebody encrypt it?
unscrubbed  (warning)   no level was ever found whole by a scrub, or none for
                        --max-scrub-age

excluded    (warning)   it has levels, and its metadata exclude it now

Snapshots of this repository that no level needs are a warning as well, of a
run that may still be at work once they are older than --max-age; see backy
snapshots. Other images with backy.exclude in their metadata are left out;
"gone" are names whose image is no more. A GLOB is as in backup; without
rbd:POOL it is about backup names. It reads no data of images or packs.`,
		Flags: append([]cli.Flag{
			&cli.GenericFlag{
				Name: "max-age", Value: &spanValue{to: &f.maxAge, parse: engine.ParseAge},
				Usage: "newest levels may be as old as `TIME`",
			},
			&cli.GenericFlag{
				Name: "max-scrub-age", Value: &spanValue{to: &f.maxScrubAge, parse: engine.ParseAge},
				Usage: "a scrub may lie back `TIME`, such as 35d",
			},
			metricsFlag(&p.metrics),
		}, f.pickFlags.flags("")...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 2); err != nil {
				return err
			}
			pool, folder := "", c.Args().First()
			if kindOf(folder) == kindRBD || c.NArg() == 2 {
				pool, folder = folder, c.Args().Get(1)
			}
			if pool != "" && kindOf(pool) != kindRBD {
				return usagef("%s: the first of two arguments is rbd:POOL[/NAMESPACE]", pool)
			}
			p.metrics.source = pool
			return p.status(c.Context, f, pool, folder)
		},
	}
}

// options are what the flags demand.
func (f *statusFlags) options() health.Options {
	return health.Options{MaxAge: f.maxAge, MaxScrubAge: f.maxScrubAge}
}

// stateError is what status ends with unless all is well.
type stateError struct {
	state health.State
	text  string
}

func (e *stateError) Error() string { return e.text }

// statusExits are the exit codes of status, as monitoring plugins have them.
// Whatever is no finding is unknown.
var statusExits = []exit{
	{0, "ok: everything is backed up", nil},
	{1, "warning", inState(health.Warning)},
	{2, "critical", inState(health.Critical)},
	{exitUnknown, "unknown: wrong usage, or no connection, too", nil},
}

const exitUnknown = 3

func inState(s health.State) func(error) bool {
	return func(err error) bool {
		var found *stateError
		return errors.As(err, &found) && found.state == s
	}
}

// statusReport is what status found.
type statusReport struct {
	State   health.State `json:"state"`
	Text    string       `json:"text"` // the first line
	MaxAge  float64      `json:"max_age_seconds"`
	Counts  statusCounts `json:"counts"`
	Images  []healthItem `json:"images"`
	Strays  int          `json:"stray_snapshots"`
	Space   int64        `json:"stray_space"` // bytes that they keep at most, as far as that is known
	Copies  int64        `json:"bad_copies"`  // see health.Report
	Lost    string       `json:"lost,omitempty"`
	ForPool string       `json:"pool,omitempty"`
}

type healthItem = health.Item

// statusCounts are how many images have a word for their state, and how many
// there are.
type statusCounts map[string]int

// strays are snapshots of this repository that nothing needs.
type strays struct {
	count int
	space int64
}

func (p *program) status(ctx context.Context, f statusFlags, pool, folder string) error {
	repo, err := p.openGiven(ctx, folder)
	if err != nil {
		return err
	}
	var report health.Report
	var left strays
	if pool != "" {
		report, left, err = p.poolStatus(ctx, repo, f, pool)
	} else {
		report, err = p.namesStatus(ctx, repo, f)
	}
	if err != nil {
		return err
	}
	state := report.State()
	if left.count > 0 {
		state = health.Worse(state, health.Warning)
	}
	s := &statusReport{
		State: state, MaxAge: f.maxAge.Seconds(), Counts: statusCounts{}, Images: report.Items,
		Strays: left.count, Space: left.space, Copies: report.Spare, ForPool: pool,
	}
	if report.Unreadable != nil {
		s.Lost = report.Unreadable.Error()
		p.talk.detail("map packs that may hold a lost level's record cannot be read: %v", report.Unreadable)
	}
	s.Counts["all"] = len(report.Items)
	for _, w := range health.Words {
		s.Counts[string(w)] = report.Count(w)
	}
	s.Text = statusLine(s, &report)
	p.report.Status = s
	p.metrics.items, p.metrics.known = report.Items, true

	text := s.Text
	if p.terminalWidth() == 0 { // people do not read them
		text += perfData(s, &report)
	}
	text += "\n" + statusTable(report.Items, time.Now(), p.terminalWidth())
	if err := p.print(text); err != nil {
		return err
	}
	for _, i := range report.Items {
		if i.Why != "" {
			p.talk.with("image", i.Image, "name", i.Name, "state", i.State).detail("%s: %s", itemName(&i), i.Why)
		}
	}
	if state == health.OK {
		return nil
	}
	return &stateError{state, s.Text}
}

// namesStatus looks at the names of a repository alone.
func (p *program) namesStatus(ctx context.Context, repo *store.Repository, f statusFlags) (r health.Report, err error) {
	if f.names != "" {
		return r, usagef("--name-template goes with rbd:POOL only")
	}
	chosen, err := f.chosen()
	if err != nil {
		return r, err
	}
	names, err := repo.Names(ctx)
	if err != nil {
		return r, err
	}
	var images []health.Image
	for _, n := range names {
		folder, last := "", string(n)
		if i := strings.LastIndexByte(last, '/'); i >= 0 {
			folder, last = last[:i], last[i+1:]
		}
		if chosen(imagePlace{Pool: folder, Image: last}) {
			images = append(images, health.Image{Name: n})
		}
	}
	return health.Look(ctx, repo, images, f.options())
}

// problemText tells a number of images with a problem.
var problemText = []struct {
	word health.Word
	text string
}{
	{health.Damaged, "damaged"},
	{health.Missing, "without a level"},
	{health.Old, "too old"},
	{health.Unknown, "unknown"},
	{health.Misdated, "misdated"},
	{health.Unusual, "unusual"},
	{health.Unscrubbed, "never scrubbed"},
	{health.Excluded, "excluded though it has levels"},
}

// statusLine is the first line, as monitoring plugins have it.
func statusLine(s *statusReport, r *health.Report) string {
	what := "name"
	if s.ForPool != "" {
		what = "image"
	}
	parts := []string{}
	for _, t := range problemText {
		text := t.text
		if n := r.Having(t.word); n > 0 {
			if t.word == health.Unscrubbed && anyScrubbed(r) {
				text = "not scrubbed lately"
			}
			parts = append(parts, fmt.Sprintf("%d %s", n, text))
		}
	}
	if s.Strays > 0 {
		parts = append(parts, count(int64(s.Strays), "stray snapshot")+" ("+bytesText(s.Space)+")")
	}
	if s.Lost != "" {
		parts = append(parts, "a level may be lost")
	}
	if s.Copies > 0 {
		parts = append(parts, plural(s.Copies, "bad copy", "bad copies")+" of maps or tables")
	}
	if len(parts) == 0 {
		parts = append(parts, "all backed up")
		if s.Counts["all"] == 0 {
			parts[0] = "nothing to look at"
		}
	}
	for _, w := range []health.Word{health.New, health.Excluded, health.Gone} {
		n := s.Counts[string(w)]
		if w == health.Excluded {
			n -= r.Having(w) // told before
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, w))
		}
	}
	return fmt.Sprintf("BACKY %s - %s: %s", strings.ToUpper(string(s.State)), count(int64(s.Counts["all"]), what), strings.Join(parts, ", "))
}

// anyScrubbed tells that of the unscrubbed some were scrubbed once.
func anyScrubbed(r *health.Report) bool {
	return slices.ContainsFunc(r.Items, func(i health.Item) bool {
		return slices.Contains(i.Problems, health.Unscrubbed) && !i.Scrubbed.IsZero()
	})
}

// perfData are the figures behind the first line, which monitoring draws:
// label=value[unit];warning;critical;least
func perfData(s *statusReport, r *health.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, " | images=%d;;;0", s.Counts["all"])
	for _, w := range []health.Word{health.Damaged, health.Missing, health.Old} {
		fmt.Fprintf(&b, " %s=%d;;0;0", w, r.Having(w))
	}
	for _, w := range []health.Word{health.Unusual, health.Unscrubbed} {
		fmt.Fprintf(&b, " %s=%d;0;;0", w, r.Having(w))
	}
	if s.ForPool != "" {
		fmt.Fprintf(&b, " strays=%d;0;;0 stray_space=%dB;;;0", s.Strays, s.Space)
	}
	if oldest := oldestLevel(r); !oldest.IsZero() {
		fmt.Fprintf(&b, " oldest=%ds;;%s;0", int64(max(time.Since(oldest), 0).Seconds()), strconv.FormatFloat(s.MaxAge, 'f', -1, 64))
	}
	return b.String()
}

// oldestLevel is the oldest of the newest levels.
func oldestLevel(r *health.Report) (oldest time.Time) {
	for _, i := range r.Items {
		if i.Dated != nil && i.State != health.Gone && (oldest.IsZero() || i.Dated.Time.Before(oldest)) {
			oldest = i.Dated.Time
		}
	}
	return oldest
}

func itemName(i *health.Item) string {
	if i.Image != "" {
		return strings.TrimPrefix(i.Image, rbdScheme)
	}
	return string(i.Name)
}

// statusTable lists the images, the worst first.
func statusTable(items []health.Item, now time.Time, width int) string {
	if len(items) == 0 {
		return ""
	}
	items = slices.Clone(items)
	slices.SortStableFunc(items, func(a, b health.Item) int {
		if a.Worst() != b.Worst() {
			if health.Worse(a.Worst(), b.Worst()) == a.Worst() {
				return -1
			}
			return 1
		}
		return slices.Index(health.Words, a.State) - slices.Index(health.Words, b.State)
	})
	columns := []column{{"STATE", false}, {"LEVEL", true}, {"AGE", true}, {"SCRUBBED", true}, {"LEVELS", true}, {"IMAGE", false}}
	var rows [][]string
	for _, i := range items {
		level := "-"
		if i.Level != 0 {
			level = i.Level.String()
		}
		state := string(i.State)
		if more := len(i.Problems) - 1; more > 0 {
			state = fmt.Sprintf("%s +%d", state, more)
		}
		age := ageText(i.Time, now)
		if !i.AgeKnown() {
			age = "?"
		}
		rows = append(rows, []string{
			state, level, age, ageText(i.Scrubbed, now), strconv.Itoa(i.Levels), itemName(&i),
		})
	}
	return table(columns, rows, width)
}
