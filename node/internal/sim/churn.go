package sim

func churnScenarios() []Scenario { return nil }
