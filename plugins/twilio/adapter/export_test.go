package adapter

// Defaults returns the configuration where nothing is set.
func Defaults() any { return newConfig() }
