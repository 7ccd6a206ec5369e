package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Zones go by their names where the host has no database of them, too.
func TestNamedZones(t *testing.T) {
	for tz, want := range map[string]string{
		"": "2026-11-25 12:00:00 +0000 UTC", ":": "2026-11-25 12:00:00 +0000 UTC", "UTC": "2026-11-25 12:00:00 +0000 UTC",
		"Europe/Berlin": "2026-11-25 13:00:00 +0100 CET", ":Europe/Berlin": "2026-11-25 13:00:00 +0100 CET",
		"America/St_Johns": "2026-11-25 08:30:00 -0330 NST", "/no/zoneinfo/Europe/Berlin": "2026-11-25 13:00:00 +0100 CET", "Etc/GMT+5": "2026-11-25 07:00:00 -0500 -05",
	} {
		zone, err := loadZone(tz, true, "")
		if err != nil || noonIn(zone) != want {
			t.Errorf("TZ=%q: %s, %v; want %s", tz, noonIn(zone), err, want)
		}
	}
}

// Each rule that is understood shows the times that the C library shows, for
// every week of a year.
func TestZoneRules(t *testing.T) {
	var weeks []string
	start := time.Date(2026, 1, 1, 0, 30, 0, 0, time.UTC)
	for n := range 53 * 2 {
		weeks = append(weeks, start.Add(time.Duration(n)*84*time.Hour).Format(time.RFC3339))
	}
	for _, tz := range []string{
		"UTC0", "UTC+5", "UTC-5:30", "<+03>-3", "<-0330>3:30", "EST5", "EST5EDT", "XST5XDT",
		"CET-1CEST,M3.5.0,M10.5.0/3", ":CET-1CEST,M3.5.0,M10.5.0/3", "NZST-12NZDT,M9.5.0,M4.1.0/3", "IST-2IDT,M3.4.4/26,M10.5.0",
		"<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "ABC-1DEF-3,J60/0,J300/23:30:15", "ABC-1DEF,59,299", "LMT+0:01:15",
	} {
		zone, err := loadZone(tz, true, "")
		if err != nil {
			t.Errorf("TZ=%q: %v", tz, err)
			continue
		}
		date := exec.Command("date", "-f", "-", "+%Y-%m-%d %H:%M:%S %:::z")
		date.Env = append(os.Environ(), "TZ="+tz)
		date.Stdin = strings.NewReader(strings.Join(weeks, "\n"))
		text, err := date.Output()
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			at, err := time.Parse(time.RFC3339, weeks[n])
			if err != nil {
				t.Fatal(err)
			}
			if got := at.In(zone).Format("2006-01-02 15:04:05"); !strings.HasPrefix(want, got) {
				t.Errorf("TZ=%q: %s is %s, and date says %s", tz, weeks[n], got, want)
				break
			}
			if _, err := json.Marshal(at.In(zone)); err != nil {
				t.Errorf("TZ=%q: %v", tz, err)
			}
		}
	}
}

// What is not understood is refused, and never UTC in silence.
func TestZonesRefused(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("not a zone"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tz := range []string{
		"Mars/Olympus", ":Mars/Olympus", "Europe/Berlni", "Local", "local", "Europe", "../../etc/passwd", "Mars/Olympus5",
		"UTC+25", "UTC+24", "UTC-23ABC", "UTC+5:99", "UT+5", "UTC+", "5", "+5", "UTC 5", " UTC", "UTC+5 ", "UTC\n",
		"<+03-3", "<+3>-3:", "CET-1CEST,M3.5.0", "CET-1CEST,M3.5.0,M10.6.0", "CET-1CEST,M13.5.0,M10.5.0", "CET-1CEST,M3.5.7,M10.5.0",
		"CET-1CEST,J0,J300", "CET-1CEST,M3.5.0,M10.5.0,M11.1.0", "CET-1CEST;M3.5.0;M10.5.0", "CET-1CEST,,", "C3T-1", "MEZ",
		"/", "/etc", "/dev/zero", "/dev/null", filepath.Join(dir, "missing"), garbage, ":" + garbage, "\x00", strings.Repeat("A", 70000),
	} {
		if zone, err := loadZone(tz, true, ""); err == nil {
			t.Errorf("TZ=%q is taken for %s: it is %s", tz, zone, noonIn(zone))
		}
	}
}

func noonIn(zone *time.Location) string {
	return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).In(zone).String()
}

// Without TZ the zone is the host's. A host without any has UTC; one whose zone
// cannot be read has none.
func TestHostZone(t *testing.T) {
	dir := t.TempDir()
	link := func(name, target string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("TZif"), 0o600); err != nil {
		t.Fatal(err)
	}
	const noonUTC, noonBerlin = "2026-11-25 12:00:00 +0000 UTC", "2026-11-25 13:00:00 +0100 CET"
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"):                            noonUTC,
		link("berlin", "../usr/share/no/zoneinfo/Europe/Berlin"): noonBerlin, // in a container without the database
		link("broken", "nowhere"):                                "",
		link("nozone", "/usr/share/no/zoneinfo/Mars/Olympus"):    "",
		link("loop", filepath.Join(dir, "loop")):                 "",
		link("device", "/dev/zero"):                              "",
		garbage:                                                  "",
		dir:                                                      "",
	} {
		got := ""
		zone, err := loadZone("", false, path)
		if err == nil {
			got = noonIn(zone)
		}
		if got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if zone, err := loadZone("", true, garbage); err != nil || zone != time.UTC {
		t.Errorf("an empty TZ: %v, %v", zone, err)
	}
}

// A time without a zone names no level while nobody knows the zone.
func TestLevelWithoutAZone(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, unknownZone)
	for _, s := range []string{"2026-11-24", "2026-11-24 10:00", "10:00", "2026-11-24T10:00:00"} {
		if _, err := parseLevel(s, now); !isA[*usageError](err) {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"2026-11-24T10:00:00Z", "2026-11-24 10:00:00 +0100", "2026-11-24T10:00:00+00:00", "7", "latest"} {
		if _, err := parseLevel(s, now); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
