package main

import "syscall"

// childAttributes puts CMD into a process group of its own, and lets it die
// with exec: a runner that kills exec, and would not find CMD in another group,
// must not leave it running with a credential.
func childAttributes(ownGroup bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: ownGroup, Pdeathsig: syscall.SIGKILL}
}

// hideMemory keeps the process's memory and environment from other processes of
// the same user, and out of core dumps: they hold the job's token.
func hideMemory() {
	_, _, _ = syscall.Syscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0) // hygiene: no reason to stop
}
