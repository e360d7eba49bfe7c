"""How events move: Faust workers that update profiles and answer with recommendations.

Also the command line, the embedded broker, the console and the simulator. It stands on
`profiles` and never imports `learner`; only the command line may start the learner, lazily.
"""
