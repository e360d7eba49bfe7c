"""What is known: contracts, settings, the model, each user's profile and its scoring, releases.

Everything here takes values and returns values, or touches one store in one file. It knows no
Kafka client, no Faust and no HTTP framework, so the stream and the learner can both stand on it.
"""
