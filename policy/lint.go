package policy

func lint(p *program, packages map[string]*Policy) Problems { return nil }
