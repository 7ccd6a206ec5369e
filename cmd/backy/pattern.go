package main

import (
	"github.com/gobwas/glob"
)

// compilePattern returns what decides whether a backup name matches: * and ?
// match no slash, ** does; "" matches all.
func compilePattern(pattern string) (func(name string) bool, error) {
	if pattern == "" {
		return func(string) bool { return true }, nil
	}
	g, err := glob.Compile(pattern, '/')
	if err != nil {
		return nil, usagef("pattern %q: %v", pattern, err)
	}
	return g.Match, nil
}
