package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/evidence"
)

func newEnrollCommand() *cobra.Command {
	var name, device string
	var withPCRs bool
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Print this machine's entry for the list of enrolled TPMs",
		Long: `Run it once on a machine that you trust, before anybody else's job ran on it. It
prints the public half of the TPM's attestation key under the machine's name, to
be added to the list that runners[].tpm.machines names. With --pcrs it adds the
values that the registers have now, so that the machine counts only as long as
it starts what it started today. It changes nothing on the machine.`,
		Example: `  proviso runner enroll --name builder-1 --pcrs`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if name == "" {
				if name, err = os.Hostname(); err != nil {
					return err
				}
			}
			tpm, err := evidence.OpenTPM(device)
			if err != nil {
				return refused(err)
			}
			defer func() { err = errors.Join(err, tpm.Close()) }()
			entry := struct {
				Name string              `json:"name"`
				AK   string              `json:"ak"`
				PCRs map[string][]string `json:"pcrs,omitempty"`
			}{Name: name, AK: tpm.Key()}
			if withPCRs {
				values, err := tpm.Registers()
				if err != nil {
					return refused(err)
				}
				entry.PCRs = map[string][]string{}
				for number, value := range values {
					entry.PCRs[number] = []string{value}
				}
			}
			data, err := json.MarshalIndent(entry, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", data)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what policies call the machine: input.runner.id (default: its host name)")
	cmd.Flags().StringVar(&device, "tpm", os.Getenv(evidence.TPMVariable), "the TPM's device, or a software TPM's socket (default: "+evidence.TPMVariable+", else /dev/tpmrm0)")
	cmd.Flags().BoolVar(&withPCRs, "pcrs", false, "with the values that the registers have now")
	return cmd
}
