package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The completions are complete texts: a shell does not run backy, and so does
// not load librbd, to know its commands and flags. An argument, and the value
// of a flag that has no words of its own, is completed as a file.

// completionFlag is what the shells need to know of a flag.
type completionFlag struct {
	long, short []string // without dashes
	usage       string
	value       string   // what it takes; "" for a switch
	words       []string // that it takes; nil: any
}

func (f completionFlag) dashed() []string {
	var names []string
	for _, n := range slices.Concat(f.short, f.long) {
		names = append(names, dashed(n))
	}
	return names
}

func completionFlags(flags []cli.Flag) []completionFlag {
	list := []completionFlag{{long: []string{"help"}, short: []string{"h"}, usage: "show help"}}
	for _, f := range flags {
		df, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		var c completionFlag
		for _, n := range f.Names() {
			if len(n) == 1 {
				c.short = append(c.short, n)
			} else {
				c.long = append(c.long, n)
			}
		}
		c.usage = strings.ReplaceAll(df.GetUsage(), "`", "")
		if df.TakesValue() {
			c.value = "VALUE"
			if _, rest, ok := strings.Cut(df.GetUsage(), "`"); ok {
				c.value, _, _ = strings.Cut(rest, "`")
			}
		}
		if g, ok := f.(*cli.GenericFlag); ok {
			if choice, ok := g.Value.(*choiceValue); ok {
				c.words = choice.words
			}
		}
		list = append(list, c)
	}
	return list
}

func bashCompletion(tree *cli.App) string {
	var names, valued, choices, flags []string
	for _, c := range tree.VisibleCommands() {
		names = append(names, c.Name)
		var own []string
		for _, f := range completionFlags(c.Flags) {
			own = append(own, f.dashed()...)
			if f.value != "" {
				valued = append(valued, f.dashed()...)
			}
			if f.words != nil {
				choices = append(choices, fmt.Sprintf("\t%s) words=%s ;;\n",
					strings.Join(f.dashed(), " | "), shQuote(strings.Join(f.words, " "))))
			}
		}
		flags = append(flags, fmt.Sprintf("\t\t\t%s) words=%s ;;\n", c.Name, shQuote(strings.Join(own, " "))))
	}
	var common []string
	for _, f := range completionFlags(tree.Flags) {
		common = append(common, f.dashed()...)
	}
	slices.Sort(valued)
	slices.Sort(choices)
	valued, choices = slices.Compact(valued), slices.Compact(choices)
	return fmt.Sprintf(`# bash completion for backy                                 -*- shell-script -*-

_backy() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command='' words='' i
	local valued=' %[1]s '
	COMPREPLY=()
	# bash takes --flag=value for three words.
	if [[ $cur == = ]]; then cur=''; fi
	if [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ $valued == *" ${COMP_WORDS[i]} "* ]]; then
			((i++))
			if [[ ${COMP_WORDS[i]} == = ]]; then ((i++)); fi
		elif [[ ${COMP_WORDS[i]} != -* ]]; then
			command=${COMP_WORDS[i]}
			break
		fi
	done
	case $prev in
%[2]s	*)
		if [[ $valued == *" $prev "* || $cur != -* && $command ]]; then return; fi
		if [[ ! $command ]]; then words=%[3]s; fi
		if [[ $cur == -* ]]; then
			case $command in
			'') words=%[5]s ;;
%[4]s			esac
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o bashdefault -o default -F _backy backy
`, strings.Join(valued, " "), strings.Join(choices, ""), shQuote(strings.Join(names, " ")),
		strings.Join(flags, ""), shQuote(strings.Join(common, " ")))
}

func zshCompletion(tree *cli.App) string {
	var commands, cases strings.Builder
	for _, c := range tree.VisibleCommands() {
		fmt.Fprintf(&commands, "\t%s\n", shQuote(c.Name+":"+c.Usage))
		fmt.Fprintf(&cases, "\t%s)\n\t\t_arguments -s -S%s \\\n\t\t\t'*:argument:_files'\n\t\t;;\n", c.Name, zshFlags(c.Flags))
	}
	return fmt.Sprintf(`#compdef backy

local curcontext=$curcontext state line
local -A opt_args
local -a commands
commands=(
%s)

_arguments -C -s -S%s \
	'1: :->command' '*:: :->arguments' && return

case $state in
command) _describe -t commands command commands ;;
arguments)
	curcontext=${curcontext%%%%:*:*}:backy-$words[1]:
	case $words[1] in
%s	esac
	;;
esac
`, commands.String(), zshFlags(tree.Flags), cases.String())
}

// zshFlags are the specifications of flags, one a line.
func zshFlags(flags []cli.Flag) string {
	escape := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`)
	var b strings.Builder
	for _, f := range completionFlags(flags) {
		names := f.dashed()
		for _, n := range names {
			spec := n
			if f.value != "" && strings.HasPrefix(n, "--") {
				spec += "="
			} else if f.value != "" {
				spec += "+"
			}
			spec += "[" + escape.Replace(f.usage) + "]"
			switch {
			case f.words != nil:
				spec += ":" + f.value + ":(" + strings.Join(f.words, " ") + ")"
			case f.value != "":
				spec += ":" + f.value + ":_files"
			}
			fmt.Fprintf(&b, " \\\n\t\t\t%s", shQuote("("+strings.Join(names, " ")+")"+spec))
		}
	}
	return b.String()
}

func fishCompletion(tree *cli.App) string {
	var b strings.Builder
	var names []string
	for _, c := range tree.VisibleCommands() {
		names = append(names, c.Name)
	}
	b.WriteString("# fish completion for backy\n\n")
	fmt.Fprintf(&b, "set -l commands %s\n", strings.Join(names, " "))
	none := `"not __fish_seen_subcommand_from $commands"`
	for _, c := range tree.VisibleCommands() {
		fmt.Fprintf(&b, "complete -c backy -f -n %s -a %s -d %s\n", none, c.Name, fishQuote(c.Usage))
	}
	b.WriteString(fishFlags(none, tree.Flags))
	for _, c := range tree.VisibleCommands() {
		b.WriteString(fishFlags(fmt.Sprintf("%q", "__fish_seen_subcommand_from "+c.Name), c.Flags))
	}
	return b.String()
}

func fishFlags(condition string, flags []cli.Flag) string {
	var b strings.Builder
	for _, f := range completionFlags(flags) {
		fmt.Fprintf(&b, "complete -c backy -n %s", condition)
		for _, n := range f.short {
			b.WriteString(" -s " + n)
		}
		for _, n := range f.long {
			b.WriteString(" -l " + n)
		}
		switch {
		case f.words != nil:
			b.WriteString(" -x -a " + fishQuote(strings.Join(f.words, " ")))
		case f.value != "":
			b.WriteString(" -r")
		}
		b.WriteString(" -d " + fishQuote(f.usage) + "\n")
	}
	return b.String()
}

// shQuote is a word for bash and zsh.
func shQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
