package main

func visit() {}
