package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // zones of hosts and containers that have none
)

// localtime is where hosts keep their zone if TZ is not set.
const localtime = "/etc/localtime"

// unknownZone is local time if nobody knows what it is. It is UTC, and whoever
// shows or reads local times says so.
var unknownZone = time.FixedZone("UTC?", 0)

// zoneProblem is why the local time zone cannot be loaded; nil: it is.
var zoneProblem error

// setZone makes local time what TZ says, or the host. Go reads TZ as well, but
// takes what it does not understand for UTC without a word.
func setZone() {
	tz, set := os.LookupEnv("TZ")
	zone, err := loadZone(tz, set, localtime)
	if err != nil {
		zone, zoneProblem = unknownZone, err
	}
	time.Local = zone
}

// zoneError is what refuses a command that must know the local time zone.
func zoneError() error {
	if zoneProblem == nil {
		return nil
	}
	return withHint(usagef("days and hours are those of local time: %w", zoneProblem),
		"TZ takes names such as Europe/Berlin or UTC, and POSIX rules such as CET-1CEST,M3.5.0,M10.5.0/3")
}

// loadZone finds the zone that TZ names, as POSIX and the C library read it: with
// or without a colon in front, a path, a name of the zone database, or a rule. If
// TZ is not set, it is the host's.
func loadZone(tz string, set bool, host string) (*time.Location, error) {
	if !set {
		return hostZone(host)
	}
	name := strings.TrimPrefix(tz, ":")
	if name == "" {
		return time.UTC, nil
	}
	if strings.HasPrefix(name, "/") {
		zone, err := fileZone(name)
		if err != nil {
			return nil, fmt.Errorf("TZ=%q: %w", tz, err)
		}
		return zone, nil
	}
	if name != "Local" { // Go's name for what it has found
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	if zone, ok := ruleZone(name); ok {
		return zone, nil
	}
	return nil, fmt.Errorf("TZ=%q: no such time zone, and no POSIX rule", tz)
}

// hostZone is that of the host; without any it is UTC, as everywhere.
func hostZone(path string) (*time.Location, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return time.UTC, nil
	}
	return fileZone(path)
}

// fileZone reads a file. A path or link into a zone database that is not there
// names the zone all the same.
func fileZone(path string) (*time.Location, error) {
	data, err := readZone(path)
	if errors.Is(err, fs.ErrNotExist) {
		target := path
		if to, linkErr := os.Readlink(path); linkErr == nil {
			target = to
		}
		if _, name, ok := strings.Cut(target, "zoneinfo/"); ok && name != "" {
			if zone, err := time.LoadLocation(name); err == nil {
				return zone, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocationFromTZData(path, data)
	if err != nil {
		return nil, fmt.Errorf("%s is no time zone file", path)
	}
	return zone, nil
}

// largestZone is more than any zone file has, in bytes.
const largestZone = 1 << 20

// readZone reads a regular file: anything else might never end.
func readZone(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > largestZone {
		return nil, fmt.Errorf("%s is no time zone file", path)
	}
	return os.ReadFile(path)
}

// posixRule is a POSIX TZ rule as far as the names and offsets go; what comes
// behind, package time checks.
var posixRule = regexp.MustCompile(`^` + posixName + posixOffset + `(` + posixName + `(` + posixOffset + `)?(,[^,;]+,[^,;]+)?)?$`)

const (
	posixName   = `([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)`
	posixOffset = `[+-]?[0-9]{1,2}(:[0-9]{2}){0,2}`
)

// ruleZone is the zone of a POSIX rule. Package time follows such rules, but
// reads them at the end of zone files only: so this makes one.
func ruleZone(rule string) (*time.Location, bool) {
	if !posixRule.MatchString(rule) {
		return nil, false
	}
	const refused = "?" // the name of the zone that counts if the rule does not
	header := func(zones, chars byte) string {
		var counts [24]byte
		counts[19], counts[23] = zones, chars
		return "TZif2" + strings.Repeat("\x00", 15) + string(counts[:])
	}
	file := header(0, 0) + header(1, 2) + "\x00\x00\x00\x00\x00\x00" + refused + "\x00\n" + rule + "\n"
	zone, err := time.LoadLocationFromTZData(rule, []byte(file))
	if err != nil {
		return nil, false
	}
	for month := range time.Month(12) {
		name, offset := time.Date(2026, month+1, 1, 0, 0, 0, 0, time.UTC).In(zone).Zone()
		if name == refused || max(offset, -offset) >= 24*60*60 { // RFC 3339 has no more
			return nil, false
		}
	}
	return zone, true
}
