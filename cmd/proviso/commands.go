package main

import "github.com/spf13/cobra"

// commands lists every command, in the order in which help shows them.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newDemoCommand(),
		newDevCommand(),
		newServeCommand(),
		newExecCommand(),
		newTokenCommand(),
		newGateCommand(),
		newRunnerCommand(),
		newInventoryCommand(),
		newPlanCommand(),
		newPolicyCommand(),
		newAuditCommand(),
		newConfigCommand(),
		newDoctorCommand(),
		newVersionCommand(),
	}
}
