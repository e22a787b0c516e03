//go:build !linux

package main

import "syscall"

func childAttributes(ownGroup bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: ownGroup}
}

// hideMemory is what Linux offers.
func hideMemory() {}
