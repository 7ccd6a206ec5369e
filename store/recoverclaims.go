package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The claims of recoveries, one a number that they put back:
//
//	work/recover.<name>.<n>
//
// They outlive their run if that dies, and are gone when something stands at
// the number's commit key. They are no target of a fence: a late put of such a
// record puts what belongs there.
const recoverPrefix = workPrefix + "recover."

func recoverKey(name Name, n LevelNumber) string {
	return recoverPrefix + name.escape() + "." + n.String()
}

// unfinished finishes the levels that lack only their records, of runs that are
// dead: see readyLevel. It returns those that it cannot finish beside others.
func (v *recovery) unfinished(ctx context.Context) (list []lostRecord, err error) {
	r := v.gc.repo
	v.unreadable = nil
	busy, err := r.claims(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range busy {
		var unreadable *LostError
		ready, err := r.ready(ctx, &c)
		switch {
		case errors.As(err, &unreadable):
		case err != nil:
			return nil, err
		case ready == nil:
			continue
		}
		var lives *BusyError
		if err := r.waitDead(ctx, &c); errors.As(err, &lives) {
			continue
		} else if err != nil {
			return nil, err
		}
		if unreadable != nil {
			v.unreadable = v.unreadable.join(unreadable)
			continue
		}
		if err := v.gc.checkClaim(ctx); err != nil {
			return nil, err
		}
		finished, settled, err := r.finishLevel(ctx, &c, v.gc.run)
		var lost *LostError
		switch {
		case finished != nil:
			v.finished = append(v.finished, *finished)
			continue
		case settled:
			continue
		case err != nil && !errors.As(err, &lost):
			return nil, err
		case err == nil:
			continue // it has not been about to commit
		}
		l := LostLevel{Name: c.Name, Number: c.Number, Run: ready.level.Run}
		list = append(list, lostRecord{l, ready.pack, ready.record})
	}
	return list, nil
}

// left is what is lost still, if anything is.
func (v *recovery) left(ctx context.Context) (*LostError, error) {
	if _, err := v.unfinished(ctx); err != nil {
		return nil, err
	}
	left, err := v.gc.repo.LostLevels(ctx, nil)
	if err != nil {
		return nil, err
	}
	damaged, err := v.damagedRecords(ctx)
	for _, d := range damaged {
		left = left.join(&LostError{Levels: []LostLevel{d.LostLevel}})
	}
	return left.join(v.unreadable), err
}

// claimAll takes the numbers of levels, those first that are free, and others for
// those that are not.
func (v *recovery) claimAll(ctx context.Context, lost []lostRecord) error {
	for _, taken := range []bool{false, true} {
		for i := range lost {
			if lost[i].Taken != taken {
				continue
			}
			if taken {
				if err := v.renumber(ctx, &lost[i]); err != nil {
					return err
				}
			}
			if err := v.claim(ctx, &lost[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim takes a number for its level. A claim that another recovery has left
// will do.
func (v *recovery) claim(ctx context.Context, l *lostRecord) error {
	r := v.gc.repo
	c := claim{
		Name: l.Name, Number: l.Number, Run: v.gc.run, Process: r.self,
		Started: r.clock().UTC(), Beat: v.gc.o.Beat.Seconds(),
	}
	err := r.putObject(ctx, recoverKey(l.Name, l.Number), "claim", &c)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("claim %s: %w", l.LostLevel, err)
	}
	return nil
}

// recoverClaims lists the numbers that recoveries have claimed: of a name, or
// of all where it is empty.
func (r *Repository) recoverClaims(ctx context.Context, name Name) (claimed []LostLevel, err error) {
	prefix := recoverPrefix
	if name != "" {
		prefix += name.escape() + "."
	}
	keys, err := r.list(ctx, prefix)
	for _, key := range keys {
		c, err := parseClaimKey(workPrefix + "claim." + strings.TrimPrefix(key, recoverPrefix))
		if err == nil && (name == "" || c.Name == name) {
			claimed = append(claimed, LostLevel{Name: c.Name, Number: c.Number})
		}
	}
	return claimed, err
}

func (r *Repository) dropRecoverClaims(ctx context.Context, mayDelete func(context.Context) error) error {
	claimed, err := r.recoverClaims(ctx, "")
	if err != nil {
		return err
	}
	for _, l := range claimed {
		decided, err := r.decided(ctx, l.Name, l.Number)
		if err != nil {
			return err
		}
		if !decided {
			continue
		}
		if err := r.deleteAll(ctx, []string{recoverKey(l.Name, l.Number)}, mayDelete); err != nil {
			return err
		}
	}
	return nil
}

// renumber gives a level whose number another run has the next one that is free.
func (v *recovery) renumber(ctx context.Context, lost *lostRecord) error {
	r := v.gc.repo
	last, err := r.lastNumber(ctx, lost.Name)
	if err != nil {
		return err
	}
	busy, err := r.claims(ctx)
	if err != nil {
		return err
	}
	for _, c := range busy {
		if c.Name == lost.Name {
			last = max(last, c.Number)
		}
	}
	var l Level
	if err := decodeObject(lost.record, "level", &l); err != nil {
		return err
	}
	l.Number = last + 1
	lost.Number = l.Number
	lost.record, err = encodeObject("level", &l)
	return err
}
